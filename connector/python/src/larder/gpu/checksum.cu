// CRC-64/NVMe of byte ranges: one block for each range, whose threads take equal
// segments from its end backwards. Zeros before a message do not change its
// remainder, so that the first segments may be short or empty, and two
// neighbours are always joined over the same distance.

struct Range {  // as in layout.py; offset is a multiple of 16, as is size
  u64 offset, sum;
  u32 size, reserved;
};
static_assert(sizeof(Range) == 24, "layout.py has the same");

constexpr u64 POLYNOMIAL = 0x9A6C9329AC4BC9B5ull;  // the highest power in the lowest bit
constexpr u32 THREADS = 64;

// a times b modulo the polynomial; x^0 is the highest bit.
__device__ inline u64 multiply(u64 a, u64 b) {
  u64 p = 0;
  for (u32 i = 0; i < 64; i++) {
    if (a >> 63) p ^= b;
    a <<= 1;
    b = b & 1 ? b >> 1 ^ POLYNOMIAL : b >> 1;
  }
  return p;
}

// powers has x^(8 (4 + i) 2^j) at 32 i + j. Segments are (4 + i) 2^j bytes, so that
// no power is worked out here: that took longer than the bytes.
extern "C" __global__ void checksum(const u8 *source, const Range *ranges, u32 count, u32 *status, const u64 *powers) {
#ifndef LARDER_EMULATED
  __shared__ u64 table[256], parts[THREADS];
#else
  static u64 table[256], parts[THREADS];
#endif
  const u32 me = threadIdx.x;
  for (u32 i = me; i < 256; i += THREADS) {
    u64 entry = i;
    for (u32 k = 0; k < 8; k++) entry = entry & 1 ? entry >> 1 ^ POLYNOMIAL : entry >> 1;
    table[i] = entry;
  }
  for (u32 i = blockIdx.x; i < count; i += gridDim.x) {
    const Range r = ranges[i];
    u32 quarter = 16, power = 4;  // a segment is a multiple of 64 bytes
    while (7ull * quarter * THREADS < r.size) quarter *= 2, power++;
    u32 times = 4;
    while ((u64)times * quarter * THREADS < r.size) times++;
    const u32 segment = times * quarter;
    __syncthreads();
    u64 behind = (u64)(THREADS - 1 - me) * segment;  // bytes behind this segment
    u64 crc = 0;
    if (behind < r.size) {
      u32 end = r.size - (u32)behind, begin = end > segment ? end - segment : 0;
      if (begin == 0) crc = ~0ull;  // the first 8 bytes are inverted
      for (const u64 *p = (const u64 *)(source + r.offset + begin), *q = (const u64 *)(source + r.offset + end); p < q; p++) {
        crc ^= *p;
        for (u32 k = 0; k < 8; k++) crc = crc >> 8 ^ table[crc & 255];
      }
    }
    parts[me] = crc;
    for (u32 d = 1, level = 0; d < THREADS; d *= 2, level++) {
      __syncthreads();
      if (me % (2 * d) == 0) parts[me] = multiply(parts[me], powers[32 * (times - 4) + power + level]) ^ parts[me + d];
    }
    __syncthreads();
    if (me == 0) status[i] = ~(r.size ? parts[0] : ~0ull) == r.sum ? 0 : CHECKSUM;
  }
}
