// Kernels: the bases, refinements and rows of units.

// Decodes a base into the stage: class after class, in a class channel after
// channel, in a channel token after token.
template <class S>
__device__ inline void base(const Group &g, const u32 *tables, Body &b, Lanes &x, const Memory &m, S *stage) {
  const u32 lane = lane_id(), tokens = g.tokens, pitch = g.pitch / sizeof(S);
  for (u32 k = 0; k < g.classes; k++) {
    u32 members = 0;
    for (u32 c = lane; c < up(g.dims, 32); c += 32) {
      bool in = c < g.dims && m.classes[c] == k;
      u32 mask = __ballot_sync(~0u, in);
      if (in) m.channel[members + __popc(mask & x.below)] = c;
      members += __popc(mask);
    }
    __syncwarp();
    const u32 *table = tables + 256 * k;
    u32 s0 = table[0] & 255, s1 = s0;
    const bool one = (table[0] >> 8 & 255) == 0;
    auto step = [&](S *p) {
      x.step(table, b, s0, s1);
      p[0] = s0;
      p[32 * pitch] = s1;
    };
    if (one) {
      for (u32 i = 0; i < members; i++)
        for (u32 t = lane; t < tokens; t += 32) stage[t * pitch + m.channel[i]] = s0;
    } else if (tokens % 256 == 0) {
      for (u32 i = 0; i < members; i++) {
        S *p = stage + m.channel[i] + lane * pitch;
        for (u32 t = 0; t < tokens; t += 256, p += 256 * pitch) {
#pragma unroll
          for (u32 j = 0; j < 4; j++) step(p + 64 * j * pitch);
          b.refill();
        }
      }
    } else if (tokens % 64 == 0) {
      for (u32 i = 0; i < members; i++) {
        S *p = stage + m.channel[i] + lane * pitch;
        for (u32 t = 0; t < tokens; t += 64, p += 64 * pitch) {
          step(p);
          b.refill();
        }
      }
    } else {
      const u32 n = members * tokens;
      for (u32 i = lane; i < up(n, 64); i += 64) {  // what fills up the last step is nobody's
        x.step(table, b, s0, s1);
        b.refill();
        u32 j = i + 32;
        if (i < n) stage[i % tokens * pitch + m.channel[i / tokens]] = s0;
        if (j < n) stage[j % tokens * pitch + m.channel[j / tokens]] = s1;
      }
    }
    __syncwarp();
  }
}

// ---- plain

__device__ inline void reconstruct(const Group &g, u8 *row, u32 c, const int *v, float step, const float *mean) {
  if (c >= g.dims) return;
  const float *m = mean + c;  // there are means up to a multiple of 4
  float f[4];
  for (u32 k = 0; k < 4; k++) f[k] = fmaf(step, (float)v[k], m[k]);
  u32 bits[4];
  if (g.dtype == BF16 && g.vector) {
    *(u64 *)(row + 2 * c) = bf16_pair(f[0], f[1]) | (u64)bf16_pair(f[2], f[3]) << 32;
    return;
  }
  for (u32 k = 0; k < 4; k++) bits[k] = to_bits(g.dtype, f[k]);
  put4(g, row, c, bits);
}

__device__ inline float pow3(u32 n) { return n == 0 ? 1.f : n == 1 ? 3.f : n == 2 ? 9.f : 27.f; }

// Reads the class map, and returns faults.
__device__ inline u32 class_map(const Group &g, const u8 *map, u32 width, const Memory &m) {
  u32 fault = packed_rest(map, g.dims, width) ? PADDING : 0;
  for (u32 c = lane_id(); c < g.dims; c += 32) {
    u32 k = packed(map, c, width);
    if (k >= g.classes) fault |= CLASS_MAP;
    m.classes[c] = k < g.classes ? k : 0;  // is an index of contexts
  }
  return fault;
}

__device__ inline u32 class_bits(u32 classes) {
  u32 w = 0;
  while (1u << w < classes) w++;
  return w;
}

// Reads the state, if it is stored, and opens the body.
__device__ inline u32 begin(const Unit &u, const u8 *stream, u32 at, Lanes &x, Body &b, u8 *ring) {
  u32 fault = 0;
  x.reset();
  if (u.state) {
    for (; at & 3; at++)
      if (stream[at]) fault = PADDING;
    fault |= x.read(stream + at);
    at += 128;
  }
  b.open(stream, at, u.size, ring);
  return fault;
}

// The rows of a unit from its stage. NESTED: the stage has values, else symbols.
template <class S, bool NESTED>
__device__ inline u32 write_rows(const Group &g, u8 *out, const S *stage, const Levels &levels, const Escapes &escapes, u32 &seen,
                                 float step, const float *mean) {
  const u32 lane = lane_id(), pitch = g.pitch / sizeof(S), tokens = g.tokens, stride = g.stride, dims = g.dims, finest = g.level;
  const u32 sinks = g.sinks < tokens ? g.sinks : tokens;
  const int zero = g.zero;
  u32 fault = 0, t = 0;
  auto row_by_row = [&](u32 end) {
    for (; t < end; t++) {
      u32 level = levels.of(t);
      float s = step * pow3(level > finest ? level : finest);
      const S *row = stage + t * pitch;
      for (u32 c = 4 * lane; c < up(dims, 128); c += 128) {
        int v[4];
        if (NESTED) {
          for (u32 k = 0; k < 4; k++) v[k] = c + k < dims ? row[c + k] : 0;
        } else {
          u32 word = four(row, c, dims);
          for (u32 k = 0; k < 4; k++) v[k] = (int)(word >> 8 * k & 255) - zero;
          for_escapes(word, seen, [&](u32 k, u32 number) {
            int e = escapes.of(number, fault);
            for (u32 j = 0; j < 4; j++) v[j] = j == k ? e : v[j];
          });
        }
        if (t >= sinks) reconstruct(g, out + (u64)t * stride, c, v, s, mean);
      }
    }
  };
  row_by_row(sinks);
  // Four rows at a time where a thread has four channels of each.
  if ((g.dtype == BF16 || g.dtype == FP16) && g.vector && !levels.list && dims <= 128) {
    const u32 c = 4 * lane, dtype = g.dtype;
    const bool in = c < dims;
    const float s = step * pow3(levels.all > finest ? levels.all : finest);
    float m[4];
    for (u32 k = 0; k < 4; k++) m[k] = in ? mean[c + k] : 0;
    const S *row = stage + t * pitch + c;
    u8 *to = out + (u64)t * stride + 2 * c;
    for (; t + 4 <= tokens; t += 4, row += 4 * pitch, to += 4 * (u64)stride) {
      u32 word[4], any = 0;
#pragma unroll
      for (u32 j = 0; j < 4; j++) {
        float f[4];
        if (!NESTED) {
          word[j] = in ? *(const u32 *)(row + j * pitch) : 0x01010101u;
          any |= has_escape(word[j]);
        }
#pragma unroll
        for (u32 k = 0; k < 4; k++) {
          int v = NESTED ? (in ? (int)row[j * pitch + k] : 0) : (int)(word[j] >> 8 * k & 255) - zero;
          f[k] = fmaf(s, (float)v, m[k]);
        }
        if (in) *(u64 *)(to + j * (u64)stride) = pair(dtype, f[0], f[1]) | (u64)pair(dtype, f[2], f[3]) << 32;
      }
      if (!NESTED && __ballot_sync(~0u, any))
#pragma unroll
        for (u32 j = 0; j < 4; j++)
          for_escapes(word[j], seen, [&](u32 k, u32 number) {
            float f = fmaf(s, (float)escapes.of(number, fault), mean[c + k]);
            *(u16 *)(to + j * (u64)stride + 2 * k) = to_bits(dtype, f);
          });
    }
  }
  row_by_row(tokens);
  return fault;
}

// Turns the symbols of a stage into values.
template <class S>
__device__ inline u32 resolve(const Group &g, S *stage, const Escapes &escapes, u32 &seen) {
  const u32 lane = lane_id(), pitch = g.pitch / sizeof(S), dims = g.dims;
  u32 fault = 0, t = 0;
  if (sizeof(S) == 1 && dims % 4 == 0 && dims <= 128) {  // four rows at a time
    const bool in = 4 * lane < dims;
    const u32 zero = g.zero * 0x01010101u;
    S *p = stage + 4 * lane;
    for (; t + 4 <= g.tokens; t += 4, p += 4 * pitch) {
      u32 word[4], any = 0;
#pragma unroll
      for (u32 j = 0; j < 4; j++) {
        word[j] = in ? *(u32 *)(p + j * pitch) : 0x01010101u;
        any |= has_escape(word[j]);
        // Four differences modulo 256.
        u32 v = ((word[j] | 0x80808080u) - (zero & 0x7f7f7f7fu)) ^ ((word[j] ^ ~zero) & 0x80808080u);
        if (in) *(u32 *)(p + j * pitch) = v;
      }
      if (__ballot_sync(~0u, any))
#pragma unroll
        for (u32 j = 0; j < 4; j++)
          for_escapes(word[j], seen, [&](u32 k, u32 number) { p[j * pitch + k] = escapes.of(number, fault); });
    }
  }
  for (; t < g.tokens; t++)
    for (u32 c = 4 * lane; c < up(dims, 128); c += 128) {
      S *p = stage + t * pitch + c;
      u32 word = four(stage + t * pitch, c, dims);
      for (u32 k = 0; k < 4; k++)
        if (c + k < dims) p[k] = (int)(word >> 8 * k & 255) - g.zero;
      for_escapes(word, seen, [&](u32 k, u32 number) { p[k] = escapes.of(number, fault); });
    }
  __syncwarp();
  return fault;
}

template <class S, bool NESTED>
__device__ inline u32 plain(const Args &a, const Group &g, const Unit &u, const u32 *tables, const u32 *contexts, const Memory &m, u16 *active) {
  const u8 *stream = a.source + u.base;
  u8 *out = a.out + u.out;
  S *stage = (S *)m.stage;
  const u32 lane = lane_id(), width = class_bits(g.classes), sinks = g.sinks < g.tokens ? g.sinks : g.tokens;
  u32 fault = padding_fault(stream, u.size), at = 8;
  const u32 mean_bits = u.mean_bits;
  const float step = __uint_as_float((u32)u.step << 16), unit_of_mean = step * __uint_as_float((u32)(127 + u.shift) << 23);
  const u8 *means = stream + at;
  if (packed_rest(means, g.dims, mean_bits)) fault |= PADDING;
  for (u32 c = lane; c < up(g.dims, 4); c += 32) {
    int v = 0;
    if (mean_bits && c < g.dims) v = (int)packed(means, c, mean_bits) - (1 << (mean_bits - 1));
    m.mean[c] = unit_of_mean * (float)v;
  }
  at += packed_size(g.dims, mean_bits);
  fault |= class_map(g, stream + at, width, m);
  at += packed_size(g.dims, width);
  const u8 *exact = stream + at;
  at += sinks * g.dims * g.size;
  const Escapes escapes = {stream + at, u.escapes, g.coarsest};
  at += 2 * escapes.count;
  const Levels levels = {u.levels == NONE ? nullptr : a.levels + u.levels, u.level};
  Lanes x;
  Body b;
  fault |= begin(u, stream, at, x, b, m.ring);
  __syncwarp();
  base(g, tables, b, x, m, stage);
  fault |= b.fault();

  u32 seen = 0;
  if (NESTED) {
    fault |= resolve(g, stage, escapes, seen);
    for (u32 p = 1; p + g.level <= g.coarsest; p++) {
      const u8 *digits = a.source + u.digits[p - 1];
      const u32 mode = u.digits_mode[p - 1], size = u.digits_size[p - 1];
      if (g.dims % 64 == 0)
        fault |= refine<S, true>(g, p, mode, digits, size, contexts, x, m, stage, active, levels);
      else
        fault |= refine<S, false>(g, p, mode, digits, size, contexts, x, m, stage, active, levels);
    }
  }
  fault |= write_rows<S, NESTED>(g, out, stage, levels, escapes, seen, step, m.mean);
  for (u32 t = 0; t < sinks; t++) copy_row(g, out + (u64)t * g.stride, exact + t * g.dims * g.size);
  if (g.whole) fault |= x.final_fault();
  return fault | (seen == escapes.count ? 0 : ESCAPES);
}

// ---- lossless

struct Rests {  // sign and mantissa of each element
  const u8 *bytes, *bits;
  u32 whole, left;
  __device__ inline u32 of(u32 i) const {
    u32 v = 0;
    for (u32 k = 0; k < whole; k++) v |= (u32)bytes[(u64)i * whole + k] << 8 * k;
    return left ? v | packed(bits, i, left) << 8 * whole : v;
  }
};

__device__ inline u32 lossless(const Args &a, const Group &g, const Unit &u, const u32 *tables, const Memory &m, u8 *stage) {
  const u8 *stream = a.source + u.base;
  u8 *out = a.out + u.out;
  const u32 lane = lane_id(), width = class_bits(g.classes), n = g.tokens * g.dims;
  u32 fault = padding_fault(stream, u.size), at = 8;
  fault |= class_map(g, stream + at, width, m);
  at += packed_size(g.dims, width);
  const u8 *list = stream + at;
  at += u.escapes;
  const u32 bits = g.man + 1;
  const Rests rests = {stream + at, stream + at + (u64)n * (bits / 8), bits / 8, bits % 8};
  if (packed_rest(rests.bits, n, rests.left)) fault |= PADDING;
  const u8 *end = rests.bits + packed_size(n, rests.left);
  for (const u8 *p = rests.bytes + 128 * lane; p < end; p += 32 * 128) prefetch(p);
  at = (u32)(end - stream);
  Lanes x;
  Body b;
  fault |= begin(u, stream, at, x, b, m.ring);
  __syncwarp();
  base(g, tables, b, x, m, stage);
  fault |= b.fault() | x.final_fault();

  u32 seen = 0, t = 0;
  const u32 dims = g.dims, count = u.escapes, exp = g.exp, man = g.man, exponent = g.exponent;
  auto escape = [&](u32 number) -> u32 {
    u32 e = number < count ? list[number] : 0;
    if (e >> exp) fault |= RANGE;
    return e;
  };
  // bf16: a rest is a byte. Rows are read some at a time, as aligned words.
  if (g.dtype == BF16 && g.vector && dims <= 128) {
    const u32 c = 4 * lane;
    const bool in = c < dims;
    const u32 shift = 8 * (u32)((u64)rests.bytes & 3);
    const u32 *p = (const u32 *)(rests.bytes - shift / 8 + c);
    const u8 *row = stage + c;
    u8 *to = out + 2 * c;
    constexpr u32 ROWS = 8;
    for (; t + ROWS <= g.tokens; t += ROWS, p += ROWS * dims / 4, row += ROWS * g.pitch, to += ROWS * (u64)g.stride) {
      u32 low[ROWS], high[ROWS], any = 0;
#pragma unroll
      for (u32 j = 0; j < ROWS; j++) {
        low[j] = in ? p[j * dims / 4] : 0;
        high[j] = in && shift ? p[j * dims / 4 + 1] : 0;
      }
#pragma unroll
      for (u32 j = 0; j < ROWS; j++) {
        u32 rest = __funnelshift_r(low[j], high[j], shift), word = in ? *(const u32 *)(row + j * g.pitch) : 0x01010101u;
        any |= has_escape(word);
        u32 v[4];
#pragma unroll
        for (u32 k = 0; k < 4; k++) {
          u32 s = word >> 8 * k & 255, r = rest >> 8 * k & 255, e = s - 1 + exponent;
          if (s && e > 255) fault |= RANGE;
          v[k] = (r & 127) | (e & 255) << 7 | r >> 7 << 15;
        }
        if (in) put4(g, to + j * (u64)g.stride, 0, v);
      }
      if (__ballot_sync(~0u, any))
        for (u32 j = 0; j < ROWS; j++)
          for_escapes(in ? *(const u32 *)(row + j * g.pitch) : 0x01010101u, seen, [&](u32 k, u32 number) {
            u16 *q = (u16 *)(to + j * (u64)g.stride + 2 * k);
            *q = (*q & 0x807f) | escape(number) << 7;
          });
    }
  }
  for (; t < g.tokens; t++)
    for (u32 c = 4 * lane; c < up(dims, 128); c += 128) {
      u32 word = four(stage + t * g.pitch, c, dims), e[4], v[4];
      for (u32 k = 0; k < 4; k++) e[k] = (word >> 8 * k & 255) - 1 + exponent;
      for_escapes(word, seen, [&](u32 k, u32 number) {
        u32 found = escape(number);
        for (u32 j = 0; j < 4; j++) e[j] = j == k ? found : e[j];
      });
      if (c >= dims) continue;
      for (u32 k = 0; k < 4; k++) {
        if (c + k < dims && e[k] >> exp) fault |= RANGE;
        u32 rest = c + k < dims ? rests.of(t * dims + c + k) : 0;
        v[k] = (rest & ((1u << man) - 1)) | e[k] << man | rest >> man << (man + exp);
      }
      put4(g, out + (u64)t * g.stride, c, v);
    }
  return fault | (seen == count ? 0 : ESCAPES);
}

// ---- kernels

// Runs unit(group, unit, tables, contexts, memory, active) in a warp for each
// unit of each task of the block. Shared memory: tables, contexts, then for each
// warp its ring, means, channels, classes and, if IN_SHARED, its stage.
template <bool IN_SHARED, class F>
__device__ inline void for_units(const Args &a, u8 *shared, F unit) {
  const u32 warp = threadIdx.x / 32, warps = blockDim.x / 32;
  u32 *tables = (u32 *)shared, *contexts = tables + a.table_slots;
  u8 *mine = (u8 *)(contexts + a.context_count);
  const u32 fixed = RING + 4 * up(a.dims, 4) + up(2 * a.dims, 16) + up(a.dims, 16), stage = up(a.stage_size, 16);
  mine += warp * (fixed + (IN_SHARED ? stage : 0));
  Memory m;
  m.ring = mine;
  m.mean = (float *)(m.ring + RING);
  m.channel = (u16 *)(m.mean + up(a.dims, 4));
  m.classes = (u8 *)m.channel + up(2 * a.dims, 16);
  u8 *scratch = a.scratch + ((u64)blockIdx.x * warps + warp) * a.scratch_size;
  u16 *active = (u16 *)scratch;
  m.stage = IN_SHARED ? mine + fixed : scratch + up(2 * a.tokens, 16);
  // Neighbouring tasks share their group: a block takes a range of them.
  const u32 begin = (u64)a.task_count * blockIdx.x / gridDim.x, end = (u64)a.task_count * (blockIdx.x + 1) / gridDim.x;
  u32 loaded = NONE;
  for (u32 i = begin; i < end; i++) {
    const Task task = a.tasks[i];
    const Group g = a.groups[task.group];
    if (task.group != loaded) {
      __syncthreads();
      for (u32 k = threadIdx.x; k < 256 * g.classes; k += blockDim.x) tables[k] = a.tables[g.tables + k];
      for (u32 k = threadIdx.x; k < 2 * g.classes * (g.coarsest - g.level); k += blockDim.x) contexts[k] = a.contexts[g.contexts + k];
      __syncthreads();
      loaded = task.group;
    }
    if (warp < task.count) {
      u32 fault = unit(g, a.units[task.first + warp], tables, contexts, m, active);
      fault = __reduce_or_sync(~0u, fault);
      if (lane_id() == 0) a.status[task.first + warp] = fault;
      __syncwarp();
    }
  }
}

#ifndef LARDER_EMULATED
extern __shared__ __align__(128) u8 shared_memory[];
#endif

#define KERNEL(name, in_shared, call)                                                                                       \
  extern "C" __global__ void __launch_bounds__(512, 1) name(const Args a) {                                                 \
    for_units<in_shared>(a, shared_memory, [&](const Group &g, const Unit &u, const u32 *tables, const u32 *contexts, const Memory &m, u16 *active) -> u32 { return call; }); \
  }

KERNEL(flat_shared, true, (plain<u8, false>(a, g, u, tables, contexts, m, active)))
KERNEL(flat_device, false, (plain<u8, false>(a, g, u, tables, contexts, m, active)))
KERNEL(narrow_shared, true, (plain<i8, true>(a, g, u, tables, contexts, m, active)))
KERNEL(narrow_device, false, (plain<i8, true>(a, g, u, tables, contexts, m, active)))
KERNEL(wide_shared, true, (plain<i16, true>(a, g, u, tables, contexts, m, active)))
KERNEL(wide_device, false, (plain<i16, true>(a, g, u, tables, contexts, m, active)))
KERNEL(lossless_shared, true, (lossless(a, g, u, tables, m, m.stage)))
KERNEL(lossless_device, false, (lossless(a, g, u, tables, m, m.stage)))

// Raw rows, and one row for all tokens.
extern "C" __global__ void exact_rows(const Args a) {
  const u32 warp = threadIdx.x / 32;
  for (u32 i = blockIdx.x; i < a.task_count; i += gridDim.x) {
    const Task task = a.tasks[i];
    if (warp >= task.count) continue;
    const Group g = a.groups[task.group];
    const Unit u = a.units[task.first + warp];
    const u8 *stream = a.source + u.base;
    u32 width = g.dims * g.size, fault = padding_fault(stream, u.size);
    for (u32 t = 0; t < g.tokens; t++) copy_row(g, a.out + u.out + (u64)t * g.stride, stream + (u.size == width ? 0 : t * width));
    fault = __reduce_or_sync(~0u, fault);
    if (lane_id() == 0) a.status[task.first + warp] = fault;
  }
}
