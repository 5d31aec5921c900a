// The state of libtorch's random generators, one a device. tch can seed them, and neither read nor set their state.
#include <ATen/ATen.h>
#include <ATen/core/Generator.h>

#include <mutex>

#include "shim.h"

using at::Tensor;

namespace {

// `cuda` is the number of a CUDA device, or -1 for the CPU.
const at::Generator& generator(int cuda) {
  return at::globalContext().defaultGenerator(cuda < 0 ? at::Device(at::kCPU) : at::Device(at::kCUDA, cuda));
}

}  // namespace

extern "C" {

// The state, bytes on the CPU.
char* peft_generator_state(int cuda, Tensor** out) {
  return guarded([&] {
    at::Generator g = generator(cuda);
    std::lock_guard<std::mutex> lock(g.mutex());
    *out = new Tensor(g.get_state());
  });
}

char* peft_generator_set_state(int cuda, const Tensor* state) {
  return guarded([&] {
    at::Generator g = generator(cuda);
    std::lock_guard<std::mutex> lock(g.mutex());
    g.set_state(*state);
  });
}

}  // extern "C"
