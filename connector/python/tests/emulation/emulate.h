// The threads of a block of CUDA as fibers of one thread: enough to run the
// kernels of larder.gpu without a GPU. A fiber runs until it comes to a barrier;
// a warp goes on when all its lanes have come to the same one, a block when all
// its threads have. Lanes that wait at different barriers end the process: on a
// GPU they would hang.
#pragma once
#include <ucontext.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#define LARDER_EMULATED
#define __device__
#define __global__
#define __launch_bounds__(...)

struct Dim {
  unsigned x;
};
static Dim threadIdx, blockIdx, blockDim, gridDim;
static unsigned char *shared_memory;

namespace emulated {

enum Barrier { RUNNING, BALLOT, OR, WARP, BLOCK };

struct Fiber {
  ucontext_t context;
  std::vector<char> stack;
  bool done = false;
  Barrier at = RUNNING;
  unsigned value = 0, result = 0;
};

static std::vector<Fiber> fibers;
static ucontext_t scheduler;
static std::function<void()> kernel;

static void start() {
  kernel();
  Fiber &me = fibers[threadIdx.x];
  me.done = true;
  swapcontext(&me.context, &scheduler);
}

static unsigned wait(Barrier at, unsigned value = 0) {
  const unsigned me = threadIdx.x;
  Fiber &f = fibers[me];
  f.at = at, f.value = value;
  swapcontext(&f.context, &scheduler);
  threadIdx.x = me;
  return f.result;
}

static bool release_warp(Fiber *lanes) {
  const Barrier at = lanes[0].at;
  if (at == RUNNING || at == BLOCK) return false;
  unsigned ballot = 0, all = 0;
  for (unsigned i = 0; i < 32; i++) {
    if (lanes[i].done || lanes[i].at != at) return false;
    ballot |= (lanes[i].value != 0) << i;
    all |= lanes[i].value;
  }
  for (unsigned i = 0; i < 32; i++) {
    Fiber &f = lanes[i];
    f.at = RUNNING;
    switch (at) {
      case BALLOT: f.result = ballot; break;
      case OR: f.result = all; break;
      default: break;
    }
  }
  return true;
}

static void run_block(unsigned threads, std::function<void()> f) {
  kernel = f;
  fibers.clear();
  fibers.resize(threads);
  for (Fiber &x : fibers) {
    x.stack.resize(64 << 10);
    getcontext(&x.context);
    x.context.uc_stack.ss_sp = x.stack.data();
    x.context.uc_stack.ss_size = x.stack.size();
    x.context.uc_link = &scheduler;
    makecontext(&x.context, start, 0);
  }
  for (;;) {
    bool moved = false;
    unsigned done = 0, waiting = 0;
    for (unsigned i = 0; i < threads; i++) {
      if (fibers[i].done || fibers[i].at != RUNNING) continue;
      moved = true;
      threadIdx.x = i;
      swapcontext(&scheduler, &fibers[i].context);
    }
    for (unsigned w = 0; w < threads; w += 32) moved |= release_warp(&fibers[w]);
    for (const Fiber &x : fibers) done += x.done, waiting += !x.done && x.at == BLOCK;
    if (done == threads) return;
    if (waiting + done == threads) {
      moved = true;
      for (Fiber &x : fibers) x.at = RUNNING;
    }
    if (!moved) {
      fprintf(stderr, "emulation: the lanes of a warp wait at different barriers\n");
      abort();
    }
  }
}

}  // namespace emulated

static unsigned __ballot_sync(unsigned, bool v) { return emulated::wait(emulated::BALLOT, v); }
static unsigned __reduce_or_sync(unsigned, unsigned v) { return emulated::wait(emulated::OR, v); }
static void __syncwarp() { emulated::wait(emulated::WARP); }
static void __syncthreads() { emulated::wait(emulated::BLOCK); }
static unsigned __popc(unsigned v) { return __builtin_popcount(v); }
static unsigned __funnelshift_r(unsigned low, unsigned high, unsigned shift) { return (((uint64_t)high << 32) | low) >> (shift & 31); }
static unsigned __float_as_uint(float f) {
  unsigned v;
  memcpy(&v, &f, 4);
  return v;
}
static float __uint_as_float(unsigned v) {
  float f;
  memcpy(&f, &v, 4);
  return f;
}

// What the kernels write in PTX.
static void prefetch(const unsigned char *) {}
static unsigned bf16_pair(float low, float high) {
  auto rounded = [](float f) -> unsigned {
    unsigned b = __float_as_uint(f);
    return (b + 0x7fff + (b >> 16 & 1)) >> 16;
  };
  return rounded(low) | rounded(high) << 16;
}
static unsigned short to_fp16(float f) {
  _Float16 h = (_Float16)f;
  unsigned short v;
  memcpy(&v, &h, 2);
  return v;
}
