// The kernels of larder.gpu for a CPU. KERNELS is the file with their sources.
#include "emulate.h"
#include KERNELS

inline void Body::copy16(u8 *to, const u8 *p, u32 n) {
  memset(to, 0, 16);
  memcpy(to, p, n);
}
inline void Body::commit() {}
inline void Body::arrive() { __syncwarp(); }
inline void Body::drain() { __syncwarp(); }

struct Kernel {
  const char *name;
  void (*run)(void **args);
};

static const Kernel kernels[] = {
#define OF_UNITS(name) {#name, [](void **args) { name(*(const Args *)args[0]); }}
    OF_UNITS(flat_shared),   OF_UNITS(flat_device),     OF_UNITS(narrow_shared),   OF_UNITS(narrow_device), OF_UNITS(wide_shared),
    OF_UNITS(wide_device),   OF_UNITS(lossless_shared), OF_UNITS(lossless_device), OF_UNITS(exact_rows),
    {"checksum", [](void **args) {
       checksum(*(const u8 **)args[0], *(const Range **)args[1], *(u32 *)args[2], *(u32 **)args[3], *(const u64 **)args[4]);
     }},
};

// Returns 1 if there is no such kernel.
extern "C" int launch(const char *name, unsigned grid, unsigned threads, unsigned shared, void **args) {
  for (const Kernel &k : kernels) {
    if (strcmp(k.name, name) != 0) continue;
    blockDim.x = threads;
    gridDim.x = grid;
    for (blockIdx.x = 0; blockIdx.x < grid; blockIdx.x++) {
      std::vector<uint64_t> memory(shared / 8 + 2, 0xa5a5a5a5a5a5a5a5ull);  // is not cleared on a GPU either
      shared_memory = (unsigned char *)(((uintptr_t)memory.data() + 15) & ~(uintptr_t)15);
      emulated::run_block(threads, [&] { k.run(args); });
    }
    return 0;
  }
  return 1;
}
