// The few things libtorch has and tch does not. Every entry point returns nullptr, or a message that the
// Rust side frees; no exception crosses the border. Tensors come as tch passes them: `at::Tensor*`.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/GradMode.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "shim.h"

#if defined(__APPLE__)
#include <malloc/malloc.h>
static size_t block_size(void* p) { return malloc_size(p); }
#elif defined(_WIN32)
#include <malloc.h>
static size_t block_size(void* p) { return _aligned_msize(p, 64, 0); }
#else
#include <malloc.h>
static size_t block_size(void* p) { return malloc_usable_size(p); }
#endif

using at::Tensor;

namespace {

std::vector<Tensor> list(Tensor** t, size_t n) {
  std::vector<Tensor> v;
  v.reserve(n);
  for (size_t i = 0; i < n; i++) v.push_back(*t[i]);
  return v;
}

// Counts the bytes of live CPU tensor storages. One atomic addition an allocation; the memory itself comes
// from the C library, 64-byte aligned as libtorch's own allocator has it.
std::atomic<size_t> live{0}, peak{0}, limit{0};

struct CountingAllocator final : at::Allocator {
  static void release(void* p) {
    if (!p) return;
    live -= block_size(p);
#ifdef _WIN32
    _aligned_free(p);
#else
    free(p);
#endif
  }
  at::DataPtr allocate(size_t n) override {
    void* p = nullptr;
    if (n) {
      const size_t most = limit;
      TORCH_CHECK(!most || live + n <= most, "out of memory: a tensor of ", n, " bytes beside ", live.load(),
                  ", the limit is ", most);
#ifdef _WIN32
      p = _aligned_malloc(n, 64);
#else
      if (posix_memalign(&p, 64, n)) p = nullptr;
#endif
      TORCH_CHECK(p, "out of memory: a tensor of ", n, " bytes could not be allocated");
      size_t now = live += block_size(p), seen = peak;
      while (now > seen && !peak.compare_exchange_weak(seen, now)) {}
    }
    return {p, p, &release, at::Device(at::kCPU)};
  }
  at::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t n) const override { memcpy(to, from, n); }
};

}  // namespace

extern "C" {

void peft_free(char* message) { free(message); }

// One step of torch.optim.Adam, or of AdamW (`decoupled`: p *= 1 - lr*wd, otherwise g += wd*p). `fused`: in one pass
// over memory; otherwise single-tensor path, operation by operation, so that the bits are Python's.
char* peft_adam_step(Tensor** p, Tensor** g, Tensor** m, Tensor** v, size_t n, int64_t step, double lr, double beta1,
                     double beta2, double eps, double weight_decay, bool decoupled, bool fused) {
  return guarded([&] {
    if (n == 0) return;
    c10::NoGradGuard no_grad;
    if (fused) {
      auto params = list(p, n);
      std::vector<Tensor> steps(n, at::full({}, (double)step, params[0].options().dtype(at::kFloat)));
      if (decoupled)
        at::_fused_adamw_(params, list(g, n), list(m, n), list(v, n), {}, steps, lr, beta1, beta2, weight_decay, eps,
                          /*amsgrad=*/false, /*maximize=*/false);
      else
        at::_fused_adam_(params, list(g, n), list(m, n), list(v, n), {}, steps, lr, beta1, beta2, weight_decay, eps,
                         /*amsgrad=*/false, /*maximize=*/false);
      return;
    }
    const double correction1 = 1 - std::pow(beta1, (double)step);
    const double correction2 = std::sqrt(1 - std::pow(beta2, (double)step));
    for (size_t i = 0; i < n; i++) {
      Tensor grad = *g[i];
      if (weight_decay != 0) {
        if (decoupled) p[i]->mul_(1 - lr * weight_decay);
        else grad = grad.add(*p[i], weight_decay);
      }
      m[i]->lerp_(grad, 1 - beta1);
      v[i]->mul_(beta2).addcmul_(grad, grad, 1 - beta2);
      Tensor denominator = v[i]->sqrt().div_(correction2).add_(eps);
      p[i]->addcdiv_(*m[i], denominator, -(lr / correction1));
    }
  });
}

// The 2-norm over all gradients together, and scaling them all by one factor.
char* peft_grad_norm(Tensor** g, size_t n, double* out) {
  return guarded([&] {
    *out = 0;
    if (n == 0) return;
    c10::NoGradGuard no_grad;
    *out = at::stack(at::_foreach_norm(list(g, n), 2)).norm().item<double>();
  });
}
char* peft_scale(Tensor** g, size_t n, double factor) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    for (size_t i = 0; i < n; i++) g[i]->mul_(factor);
  });
}

// Fills tensor after tensor with U(-bound, bound) from a generator of its own, as `torch.Generator().manual_seed(seed)`
// gives them: the global generator's sequence goes on undisturbed.
char* peft_seeded_uniform(Tensor** t, const double* bounds, size_t n, uint64_t seed) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(seed);
    for (size_t i = 0; i < n; i++) t[i]->uniform_(-bounds[i], bounds[i], generator);
  });
}

void peft_memory_install() {
  static CountingAllocator counting;
  c10::SetCPUAllocator(&counting, /*priority=*/100);
}
size_t peft_memory_live() { return live; }
size_t peft_memory_peak() { return peak; }
void peft_memory_reset() { peak = live.load(); }
void peft_memory_limit(size_t bytes) { limit = bytes; }

// The caching allocator of the CUDA library, through the interface that c10 keeps for it.
char* peft_cuda_memory_peak(int device, int64_t* bytes) {
  return guarded([&] {
    auto stats = c10::getDeviceAllocator(at::kCUDA)->getDeviceStats(device);
    *bytes = stats.allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)].peak;
  });
}
char* peft_cuda_memory_reset(int device) {
  return guarded([&] { c10::getDeviceAllocator(at::kCUDA)->resetPeakStats(device); });
}

// Waits until the device has done what it was asked to: needed around every time measurement.
char* peft_cuda_synchronize(int device) {
  return guarded([&] {
    c10::impl::VirtualGuardImpl guard(at::kCUDA);
    guard.synchronizeDevice(device);
  });
}

}  // extern "C"
