// Refinements: a pass takes values v to 3 v + digit, token after token.

struct Levels {  // of the tokens of a unit
  const u8 *list;
  u32 all;
  __device__ inline u32 of(u32 t) const { return list ? list[t] : all; }
};

// Walks through the rows that a pass takes, 64 values a step, of which a thread
// has two. With ROWS a step lies within a row: dims is a multiple of 64.
template <class S, bool ROWS>
struct Walk {
  S *stage;
  const u16 *active;  // tokens of the rows, or null: all
  u32 pitch, dims, n, i, r, c;

  __device__ inline Walk(S *stage, const u16 *active, u32 pitch, u32 dims, u32 n)
      : stage(stage), active(active), pitch(pitch), dims(dims), n(n), i(lane_id()), r(0), c(lane_id()) {}
  __device__ inline void next() {
    i += 64;
    c += 64;
    if (ROWS && c >= dims) c = lane_id(), r++;
  }
  __device__ inline bool in(u32 half) const { return i + 32 * half < n; }
  // Both only where in(half).
  __device__ inline S *value(u32 half, u32 &channel) const {
    u32 row = r;
    channel = c + 32 * half;
    if (!ROWS) {
      row = (i + 32 * half) / dims;
      channel = i + 32 * half - row * dims;
    }
    return stage + (active ? active[row] : row) * pitch + channel;
  }
};

__device__ inline int refined(int v, u32 symbol) { return 3 * v + (v < 0 ? 1 - (int)symbol : (int)symbol - 1); }

template <class S, bool ROWS>
__device__ inline u32 coded_digits(Walk<S, ROWS> w, const u8 *stream, u32 size, const u32 *contexts, Lanes &x, const Memory &m) {
  Body b;
  b.open(stream, 0, size, m.ring);
  // Values and contexts are read a step ahead: they are no part of the chain.
  S *p[2];
  int v[2];
  u32 context[2], channel;
  auto look = [&](u32 half) {
    if (!w.in(half)) return;
    p[half] = w.value(half, channel);
    v[half] = *p[half];
    context[half] = contexts[2 * m.classes[channel] + (v[half] != 0)];
  };
  look(0);
  look(1);
  for (u32 i = 0; i < w.n; i += 64) {
    const bool in0 = w.in(0), in1 = w.in(1);
    S *p0 = p[0], *p1 = p[1];
    const int v0 = v[0], v1 = v[1];
    const u32 c0 = context[0], c1 = context[1];
    w.next();
    look(0);
    look(1);
    u32 d0 = 1, d1 = 1;
    if (in0) d0 = Lanes::take_digit(c0, x.x0);
    if (in1) d1 = Lanes::take_digit(c1, x.x1);
    x.renormalise(b, in0 && x.x0 < 256, in1 && x.x1 < 256);
    b.refill();
    if (in0) *p0 = refined(v0, d0);
    if (in1) *p1 = refined(v1, d1);
  }
  return b.fault();
}

// A raw digit of a pass of n: groups of 320, five to a byte.
__device__ inline u32 raw_digit(const u8 *p, u32 n, u32 i, u32 &fault) {
  u32 group = i / 320, r = i % 320, left = n - group * 320;
  u32 w = left >= 320 ? 64 : (left + 4) / 5;
  u32 k = r / w, byte = p[group * 64 + r % w];
  if (byte >= 243) fault |= DIGITS;
  for (u32 j = 0; j < k; j++) byte /= 3;
  return byte % 3;
}

template <class S, bool ROWS>
__device__ inline u32 raw_digits(Walk<S, ROWS> w, const u8 *stream) {
  const u32 n = w.n, lane = lane_id(), full = n / 320;
  u32 fault = 0, channel, next[2] = {0, 0};
  if (full) next[0] = stream[lane], next[1] = stream[lane + 32];
  for (u32 g = 0; g < full; g++) {
    u32 byte[2] = {next[0], next[1]};
    if (g + 1 < full) next[0] = stream[64 * g + 64 + lane], next[1] = stream[64 * g + 96 + lane];
    if (byte[0] >= 243 || byte[1] >= 243) fault = DIGITS;
#pragma unroll
    for (u32 k = 0; k < 5; k++) {
#pragma unroll
      for (u32 half = 0; half < 2; half++) {
        S *p = w.value(half, channel);
        u32 third = byte[half] * 171 >> 9;  // exact below 256
        *p = refined(*p, byte[half] - 3 * third);
        byte[half] = third;
      }
      w.next();
    }
  }
  for (u32 i = 320 * full; i < n; i += 64) {
    for (u32 half = 0; half < 2; half++)
      if (w.in(half)) {
        S *p = w.value(half, channel);
        *p = refined(*p, raw_digit(stream, n, i + lane + 32 * half, fault));
      }
    w.next();
  }
  u32 left = n % 320, width = (left + 4) / 5;  // digits behind the end are 0
  for (u32 r = left + lane; r < 5 * width; r += 32) {
    u32 byte = stream[64 * full + r % width];
    for (u32 j = 0; j < r / width; j++) byte /= 3;
    if (byte % 3) fault |= DIGITS;
  }
  return fault;
}

// Takes a pass: values of the tokens whose level is at most `most` become
// 3 v + digit. active is room for their numbers, used if they are not all.
template <class S, bool ROWS>
__device__ inline u32 refine(const Group &g, u32 pass, u32 mode, const u8 *stream, u32 size, const u32 *contexts, Lanes &x, const Memory &m,
                             S *stage, u16 *active, const Levels &levels) {
  const u32 lane = lane_id(), most = g.coarsest - pass;
  u32 rows = 0, channel, fault = padding_fault(stream, size);
  if (levels.list) {
    for (u32 t = lane; t < up(g.tokens, 32); t += 32) {
      bool in = t < g.tokens && levels.of(t) <= most;
      u32 mask = __ballot_sync(~0u, in);
      if (in) active[rows + __popc(mask & x.below)] = t;
      rows += __popc(mask);
    }
    __syncwarp();
  } else {
    rows = levels.all <= most ? g.tokens : 0;
  }
  Walk<S, ROWS> w(stage, levels.list ? active : nullptr, g.pitch / sizeof(S), g.dims, rows * g.dims);
  if (mode == DIGITS_CODED) {
    fault |= coded_digits(w, stream, size, contexts + (pass - 1) * 2 * g.classes, x, m);
  } else if (mode == DIGITS_RAW) {
    fault |= raw_digits(w, stream);
  } else {
    for (; w.i - lane < w.n; w.next())
      for (u32 half = 0; half < 2; half++)
        if (w.in(half)) *w.value(half, channel) *= 3;
  }
  __syncwarp();
  return fault;
}

