// Symbols of a row, and the elements that they become.

__device__ inline bool has_escape(u32 word) { return ((word - 0x01010101u) & ~word & 0x80808080u) != 0; }

// Escapes are listed token by token, and a warp goes through the stage in the
// same order, four symbols to a thread. Calls found(k, number) for those of this
// thread; seen counts all.
template <class F>
__device__ inline void for_escapes(u32 word, u32 &seen, F found) {
  if (__ballot_sync(~0u, has_escape(word)) == 0) return;
  const u32 below = (1u << lane_id()) - 1;
  u32 number = seen;
  for (u32 k = 0; k < 4; k++) {
    u32 mask = __ballot_sync(~0u, (word >> 8 * k & 255) == 0);
    number += __popc(mask & below);
    seen += __popc(mask);
  }
  for (u32 k = 0; k < 4; k++)
    if ((word >> 8 * k & 255) == 0) found(k, number++);
}

// Four symbols of a row from channel c; those behind its end are 1.
template <class S>
__device__ inline u32 four(const S *row, u32 c, u32 dims) {
  if (c >= dims) return 0x01010101u;
  u32 word = *(const u32 *)(row + c);
  if (dims - c < 4) word = (word & ((1u << 8 * (dims - c)) - 1)) | 0x01010101u << 8 * (dims - c);
  return word;
}

template <>
__device__ inline u32 four<i16>(const i16 *row, u32 c, u32 dims) {
  u32 word = 0x01010101u;
  for (u32 k = 0; k < 4; k++)
    if (c + k < dims) word = (word & ~(255u << 8 * k)) | (u32)(u8)row[c + k] << 8 * k;
  return word;
}

// Value `number` of the list of a plain unit's escapes.
struct Escapes {
  const u8 *list;
  u32 count, coarsest;
  __device__ inline int of(u32 number, u32 &fault) const {
    if (number >= count) return 0;  // their number does not fit, which is found at the end
    int v = (i16)(list[2 * number] | list[2 * number + 1] << 8), scaled = v;
    for (u32 i = 0; i < coarsest; i++) scaled *= 3;
    if (scaled >= -32767 && scaled <= 32767) return v;
    fault |= RANGE;
    return 0;
  }
};

// ---- writing

// Rounds to 8 bits: to nearest, ties to even, at most the largest finite.
__device__ inline u32 to_fp8(float f, u32 man, int bias, u32 top) {
  u32 bits = __float_as_uint(f), sign = bits >> 24 & 128, code;
  bits &= 0x7fffffff;
  if (bits < (u32)(128 - bias) << 23) {  // below the smallest normal number
    code = (u32)rintf(__uint_as_float(bits) * __uint_as_float((u32)(127 + bias - 1 + (int)man) << 23));
  } else {
    u32 cut = 23 - man;
    bits += (1u << (cut - 1)) - 1 + (bits >> cut & 1);
    code = (bits >> cut) - ((u32)(127 - bias) << man);
  }
  return sign | (code < top ? code : top);
}

__device__ inline u32 to_bits(u32 dtype, float f) {
  switch (dtype) {
    case FP32: return __float_as_uint(f);
    case BF16: return bf16_pair(f, 0) & 0xffff;  // 2^108 is the largest there is
    case FP16: return to_fp16(fminf(fmaxf(f, -65504.f), 65504.f));
    case E4M3: return to_fp8(f, 3, 7, 0x7e);
    default: return to_fp8(f, 2, 15, 0x7b);
  }
}

__device__ inline void put(u8 *p, u32 bits, u32 size) {
  for (u32 k = 0; k < size; k++) p[k] = bits >> 8 * k;
}

__device__ inline u32 pair(u32 dtype, float low, float high) {
  return dtype == BF16 ? bf16_pair(low, high) : to_bits(FP16, low) | to_bits(FP16, high) << 16;
}

// Four elements of a row from channel c. row is aligned to 8 bytes if g.vector.
__device__ inline void put4(const Group &g, u8 *row, u32 c, const u32 *bits) {
  u8 *p = row + c * g.size;
  if (g.vector && g.size == 2) {
    *(u64 *)p = (bits[0] | bits[1] << 16) | (u64)(bits[2] | bits[3] << 16) << 32;
    return;
  }
  for (u32 k = 0; k < 4 && c + k < g.dims; k++) put(p + k * g.size, bits[k], g.size);
}

__device__ inline void copy_row(const Group &g, u8 *to, const u8 *from) {
  u32 n = g.dims * g.size;
  for (u32 i = lane_id(); i < n; i += 32) to[i] = from[i];
}

