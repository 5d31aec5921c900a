// A part of a model whose inner values are not kept for the gradients: they are computed again when those are due (Chen et
// al. 2016). The part itself is Rust's, behind a pointer.
#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstdlib>
#include <stdexcept>
#include <string>

#include "shim.h"

using at::Tensor;

namespace {

// Rust's closure. What it says on failure is malloc's, and freed here.
struct Part final : torch::CustomClassHolder {
  void* data;
  char* (*call)(void*, const Tensor*, Tensor**);
  void (*drop)(void*);

  Part(void* data, char* (*call)(void*, const Tensor*, Tensor**), void (*drop)(void*))
      : data(data), call(call), drop(drop) {}
  ~Part() override { drop(data); }

  Tensor run(const Tensor& x) const {
    Tensor* out = nullptr;
    if (char* message = call(data, &x, &out)) {
      std::string text(message);
      free(message);
      throw std::runtime_error(text);
    }
    Tensor y = *out;
    delete out;
    return y;
  }
};

// What the part gave without a graph; no input of the function, whose output it becomes.
struct Value {
  Tensor y;
};

struct Recomputed : torch::autograd::Function<Recomputed> {
  // `anchor` requires a gradient, so that there is a backward pass even where x needs none.
  static Tensor forward(torch::autograd::AutogradContext* ctx, const Tensor& x, const Tensor& anchor, const Value& value,
                        const c10::intrusive_ptr<Part>& part) {
    ctx->save_for_backward({x});
    ctx->saved_data["part"] = c10::IValue::make_capsule(part);
    return value.y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    auto capsule = ctx->saved_data["part"].toCapsule();
    const Part& part = static_cast<const Part&>(*capsule);
    Tensor x = ctx->get_saved_variables()[0].detach();
    const bool wanted = ctx->needs_input_grad(0);
    x.set_requires_grad(wanted);
    {
      at::AutoGradMode on(true);
      Tensor y = part.run(x);
      // Gradients of parameters are added to those they have, as in the pass around this one.
      if (y.requires_grad()) torch::autograd::backward({y}, {grads[0]});
    }
    return {wanted ? x.grad() : Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace

extern "C" {

// The node of `y`, which is `part(x)` computed without a graph. The part is dropped with the last reference to it, or here
// if this fails.
char* peft_recomputed(const Tensor* x, const Tensor* y, void* data, char* (*call)(void*, const Tensor*, Tensor**),
                      void (*drop)(void*), Tensor** out) {
  return guarded([&] {
    auto part = c10::make_intrusive<Part>(data, call, drop);
    Tensor anchor = at::zeros({}, x->options().dtype(at::kFloat)).set_requires_grad(true);
    *out = new Tensor(Recomputed::apply(*x, anchor, Value{*y}, part));
  });
}

}  // extern "C"
