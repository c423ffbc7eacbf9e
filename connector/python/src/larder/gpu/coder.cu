// Decodes coded objects (codec/FORMAT.md, codec/rans/FORMAT.md): one warp for
// each unit. Thread t has the lanes t and t + 32.
//
// The host (layout.py) has checked every length, count and offset of Unit, Group
// and Task against the bytes that are there. What only the streams say (lanes,
// class maps, escapes, where a body ends) is checked here, and ends in a word
// for each unit; no such value is ever an address that was not bounded first.
//
// A base comes channel by channel, in the order of classes, while rows and
// digits go token by token: between them lies the stage, the unit's symbols
// (bytes) or values (16 bits) by token. It is in shared memory where that leaves
// room for enough warps, else in a scratch of device memory.
//
// Compiled by NVRTC for compute capability 8.0 and later, without includes.

typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef short i16;
typedef unsigned int u32;
typedef unsigned long long u64;

struct Unit {
  u64 base, out;       // offsets of the base stream and of the first row
  u64 digits[3];       // of the streams of passes 1..3
  u32 size;            // bytes of the streams
  u32 digits_size[3];
  u32 levels;          // where the tokens' levels begin, or NONE: all have `level`
  u32 escapes;
  u16 step;
  i8 shift;
  u8 mean_bits, state, level, digits_mode[3];
  u8 reserved[7];
};

struct Group {  // units of one object and field that are coded in one way
  u32 tables;   // the first class's table, in slots
  u32 contexts; // pass 1's first context; 2 x classes for each pass
  u32 tokens, dims, stride, sinks, pitch;  // bytes of a row of the output and of the stage
  u8 dtype, size, exp, man, classes, zero, exponent, coarsest;
  u8 level, whole, vector, reserved;  // whole: all passes are read. vector: rows are aligned to 8 bytes
};

struct Task {  // what one block does at a time: a warp for each unit
  u32 group, first, count;
};

static_assert(sizeof(Unit) == 80 && sizeof(Group) == 40 && sizeof(Task) == 12, "layout.py has the same");

struct Args {
  const u8 *source;
  u8 *out;
  const Unit *units;
  const Group *groups;
  const Task *tasks;
  const u32 *tables, *contexts;
  const u8 *levels;
  u8 *scratch;
  u32 *status;  // one for each unit
  u64 scratch_size;  // for each warp
  u32 task_count;
  u32 table_slots, context_count;  // room in shared memory
  u32 stage_size;                  // bytes of a stage
  u32 dims;                        // the most
  u32 tokens;                      // the most
};

constexpr u32 NONE = 0xffffffff;
constexpr u32 RING = 1024, PIECE = 256;  // bytes of a body that wait in shared memory
enum { FP32 = 1, BF16, FP16, E4M3, E5M2 };
enum { RAW, REPEAT };
enum { DIGITS_ZERO, DIGITS_RAW, DIGITS_CODED };
enum Fault : u32 {  // as in layout.py
  BODY = 1, FINAL_STATE = 2, ESCAPES = 4, CLASS_MAP = 8, PADDING = 16, RANGE = 32, DIGITS = 64, STATE = 128, CHECKSUM = 256
};

__device__ inline u32 lane_id() { return threadIdx.x & 31; }
__device__ inline u32 up(u32 n, u32 to) { return (n + to - 1) / to * to; }

// ---- reading

// Number i of those packed with `width` bits (0..8) each.
__device__ inline u32 packed(const u8 *p, u32 i, u32 width) {
  if (width == 0) return 0;
  u64 bit = (u64)i * width;
  u32 shift = bit & 7, v = p[bit >> 3];
  if (shift + width > 8) v |= (u32)p[(bit >> 3) + 1] << 8;
  return v >> shift & ((1u << width) - 1);
}

__device__ inline u64 packed_size(u64 n, u32 width) { return (n * width + 7) / 8; }

// The bits behind the last of n packed numbers.
__device__ inline u32 packed_rest(const u8 *p, u64 n, u32 width) {
  u64 bits = n * width;
  return bits & 7 ? p[bits >> 3] >> (bits & 7) : 0;
}

__device__ inline u32 padding_fault(const u8 *stream, u32 size) {
  u32 at = size + lane_id();
  return at < up(size, 16) && stream[at] ? PADDING : 0;
}

// The bytes of a body in the order in which lanes take them. Four pieces wait in
// the ring: what four steps may take is in the first two, the others are on their
// way. Behind the stream's end come zeros.
struct Body {
  const u8 *from;
  u8 *ring;
  u32 at, end, limit, next;

  // Starts at `begin` of a stream whose body ends with it.
  __device__ inline void open(const u8 *stream, u32 begin, u32 size, u8 *memory) {
    drain();
    u32 skip = begin & ~15u;
    from = stream + skip;
    ring = memory;
    at = begin - skip;
    end = size - skip;
    limit = up(size, 16) - skip;
    next = PIECE;
    for (u32 i = 0; i < RING / PIECE; i++) fetch(i * PIECE);
    arrive();
  }
  __device__ inline void fetch(u32 offset) {
    u32 o = offset + 16 * lane_id();
    if (lane_id() < PIECE / 16) copy16(ring + (o & (RING - 1)), o < limit ? from + o : from, o < limit ? 16 : 0);
    commit();
  }
  // Looks for more bytes: after every step, or after every fourth.
  __device__ inline void refill() {
    if (at < next) return;
    __syncwarp();  // nobody reads the piece behind any more
    fetch(next + RING - PIECE);
    next += PIECE;
    arrive();
  }
  __device__ inline u32 fault() const { return at == end ? 0 : BODY; }

  __device__ static inline void copy16(u8 *to, const u8 *p, u32 n);
  __device__ static inline void commit();
  __device__ static inline void arrive();  // all but the last two pieces
  __device__ static inline void drain();
};

#ifndef LARDER_EMULATED
__device__ inline void Body::copy16(u8 *to, const u8 *p, u32 n) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"((u32)__cvta_generic_to_shared(to)), "l"(p), "r"(n) : "memory");
}
__device__ inline void Body::commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
__device__ inline void Body::arrive() {
  asm volatile("cp.async.wait_group 2;" ::: "memory");
  __syncwarp();
}
__device__ inline void Body::drain() {
  asm volatile("cp.async.wait_group 0;" ::: "memory");
  __syncwarp();
}
__device__ inline void prefetch(const u8 *p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }
__device__ inline u32 bf16_pair(float low, float high) {
  u32 v;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(v) : "f"(high), "f"(low));
  return v;
}
__device__ inline u16 to_fp16(float f) {
  u16 v;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(v) : "f"(f));
  return v;
}
#endif

// ---- entropy coder

struct Lanes {
  u32 x0, x1, below;  // below: the lanes before this one

  __device__ inline void reset() {
    x0 = x1 = 256;
    below = (1u << lane_id()) - 1;
  }
  __device__ inline u32 read(const u8 *p) {  // aligned to 4
    x0 = ((const u16 *)p)[lane_id()];
    x1 = ((const u16 *)p)[lane_id() + 32];
    return x0 < 256 || x1 < 256 ? STATE : 0;
  }
  __device__ inline u32 final_fault() const { return x0 == 256 && x1 == 256 ? 0 : FINAL_STATE; }

  __device__ inline void renormalise(Body &b, bool short0, bool short1) {
    u32 m0 = __ballot_sync(~0u, short0), m1 = __ballot_sync(~0u, short1);
    u32 n0 = __popc(m0), p = b.at;
    if (short0) x0 = x0 << 8 | b.ring[(p + __popc(m0 & below)) & (RING - 1)];
    if (short1) x1 = x1 << 8 | b.ring[(p + n0 + __popc(m1 & below)) & (RING - 1)];
    b.at = p + n0 + __popc(m1);
  }
  // A slot of a table is symbol | frequency << 8 | bias << 16. A table with one
  // symbol has frequency 256, which is 0 here, and is never stepped through.
  __device__ inline u32 take(const u32 *table, u32 &x) {
    u32 e = table[x & 255];
    x = (e >> 8 & 255) * (x >> 8) + (e >> 16);
    return e & 255;
  }
  __device__ inline void step(const u32 *table, Body &b, u32 &s0, u32 &s1) {
    s0 = take(table, x0);
    s1 = take(table, x1);
    renormalise(b, x0 < 256, x1 < 256);
  }
  // A context is the first slots of its second and third symbol, and the three
  // symbols, 2 bits each.
  __device__ static inline u32 take_digit(u32 context, u32 &x) {
    u32 second = context & 255, third = context >> 8 & 255, slot = x & 255;
    u32 k = (slot >= second) + (slot >= third);
    u32 low = k == 2 ? third : k == 1 ? second : 0, high = k == 2 ? 256 : k == 1 ? third : second;
    x = (high - low) * (x >> 8) + slot - low;
    return context >> (16 + 2 * k) & 3;
  }
};

// What a warp has of shared memory.
struct Memory {
  u8 *ring;
  float *mean;
  u16 *channel;
  u8 *classes;
  u8 *stage;
};

