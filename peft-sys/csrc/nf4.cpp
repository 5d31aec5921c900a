// NF4, the 4-bit format of QLoRA, with the numbers of bitsandbytes. A weight of n values lies row by row in blocks of
// 64; each block has a scale (absmax), each value is one of 16 codes times that. Two codes a byte, the first one high.
#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <optional>

#include "shim.h"

using at::Tensor;

namespace {

constexpr int64_t BLOCK = 64, NESTED_BLOCK = 256;
// How many blocks a thread takes at least.
constexpr int64_t GRAIN = 512;

int64_t blocks(int64_t n, int64_t size) { return (n + size - 1) / size; }

// Everything about one weight; mirrors `Packed` of nf4.rs. With double quantisation the scales are themselves bytes:
// nested_map[byte] * nested_absmax + offset, in blocks of 256.
struct Packed {
  Tensor codes, map, absmax, nested_absmax, nested_map;
  double offset;
  int64_t rows, cols;
  at::ScalarType dtype;

  // f32, one a block.
  Tensor scales() const {
    if (!nested_absmax.defined()) return absmax;
    Tensor values = nested_map.index_select(0, absmax.to(at::kInt));
    return values.mul_(nested_absmax.repeat_interleave(NESTED_BLOCK).narrow(0, 0, values.numel())).add_(offset);
  }

  // [rows, cols]. `portable`: by libtorch's operations, on any device.
  Tensor dense(bool portable) const {
    const int64_t n = rows * cols;
    TORCH_CHECK(codes.scalar_type() == at::kByte && codes.is_contiguous() && codes.numel() == blocks(n, 2),
                "nf4: ", n, " values need ", blocks(n, 2), " bytes, there are ", codes.numel());
    Tensor scale = scales().contiguous();
    TORCH_CHECK(scale.scalar_type() == at::kFloat && scale.numel() == blocks(n, BLOCK), "nf4: ", n,
                " values need a scale for each of ", blocks(n, BLOCK), " blocks, there are ", scale.numel());
    TORCH_CHECK(map.scalar_type() == at::kFloat && map.numel() == 16, "nf4: a map of ", map.numel(), " codes");
    if (portable || !codes.is_cpu()) return by_operations(scale, n);
    Tensor out = at::empty({rows, cols}, codes.options().dtype(dtype));
    const Tensor codebook = map.contiguous();
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, dtype, "nf4", [&] {
      const auto* from = codes.const_data_ptr<uint8_t>();
      const auto* code = codebook.const_data_ptr<float>();
      const auto* absmax = scale.const_data_ptr<float>();
      auto* to = out.mutable_data_ptr<scalar_t>();
      at::parallel_for(0, blocks(n, BLOCK), GRAIN, [&](int64_t begin, int64_t end) {
        for (int64_t b = begin; b < end; b++) {
          // The block's 16 possible values, once: all rounding happens here.
          scalar_t value[16];
          for (int i = 0; i < 16; i++) value[i] = static_cast<scalar_t>(code[i] * absmax[b]);
          const uint8_t* pair = from + b * (BLOCK / 2);
          scalar_t* y = to + b * BLOCK;
          const int64_t count = std::min(BLOCK, n - b * BLOCK);
          for (int64_t i = 0; i < count / 2; i++) {
            y[2 * i] = value[pair[i] >> 4];
            y[2 * i + 1] = value[pair[i] & 15];
          }
          if (count % 2) y[count - 1] = value[pair[count / 2] >> 4];
        }
      });
    });
    return out;
  }

 private:
  Tensor by_operations(const Tensor& scale, int64_t n) const {
    // One look-up a byte: [256, 2], the values of its two codes.
    Tensor pairs = at::stack({map.repeat_interleave(16), map.repeat(16)}, 1);
    Tensor values = pairs.index_select(0, codes.reshape({-1}).to(at::kInt)).view({-1}).narrow(0, 0, n);
    if (n % BLOCK == 0) values.view({-1, BLOCK}).mul_(scale.unsqueeze(1));
    else values.mul_(scale.repeat_interleave(BLOCK).narrow(0, 0, n));
    return values.view({rows, cols}).to(dtype);
  }
};

// y = x Wᵀ + b over a packed W. Only the packed form is kept for the backward pass, where W is formed again.
struct Linear : torch::autograd::Function<Linear> {
  static Tensor forward(torch::autograd::AutogradContext* ctx, const Tensor& x, const std::optional<Tensor>& bias,
                        const Packed& w) {
    ctx->save_for_backward({w.codes, w.map, w.absmax, w.nested_absmax, w.nested_map});
    ctx->saved_data["bias"] = bias.has_value();
    ctx->saved_data["offset"] = w.offset;
    ctx->saved_data["rows"] = w.rows;
    ctx->saved_data["cols"] = w.cols;
    ctx->saved_data["dtype"] = static_cast<int64_t>(w.dtype);
    // One that may be changed in place, which a view that comes out of here may not.
    auto shape = x.sizes().vec();
    shape.back() = w.rows;
    return at::_unsafe_view(at::linear(x.reshape({-1, x.size(-1)}), weight(w, x), bias), shape);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const Tensor& g = grads[0];
    Tensor dx, db;
    if (g.defined() && ctx->needs_input_grad(0)) {
      auto saved = ctx->get_saved_variables();
      auto& data = ctx->saved_data;
      Packed w{saved[0],        saved[1],
               saved[2],        saved[3],
               saved[4],        data["offset"].toDouble(),
               data["rows"].toInt(), data["cols"].toInt(),
               static_cast<at::ScalarType>(data["dtype"].toInt())};
      dx = g.matmul(weight(w, g));
    }
    // A bias that is not there has no number among the inputs.
    if (g.defined() && ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(1)) db = g.reshape({-1, g.size(-1)}).sum(0);
    return {dx, db, Tensor()};
  }

  // In the dtype of what it is multiplied with.
  static Tensor weight(const Packed& w, const Tensor& by) { return w.dense(false).to(by.scalar_type()); }
};

// The entry of `map` (ascending) that is nearest to v, the lower one of two.
int64_t nearest(const float* map, int64_t n, float v) {
  const int64_t above = std::lower_bound(map, map + n, v) - map;
  if (above == 0) return 0;
  if (above == n) return n - 1;
  return std::fabs(v - map[above - 1]) <= std::fabs(v - map[above]) ? above - 1 : above;
}

Packed packed(Tensor** t, double offset, int64_t rows, int64_t cols, int dtype) {
  auto get = [&](int i) { return t[i] ? *t[i] : Tensor(); };
  return {get(0), get(1), get(2), get(3), get(4), offset, rows, cols, static_cast<at::ScalarType>(dtype)};
}

}  // namespace

extern "C" {

// Codes and scales of a contiguous CPU tensor; `map` ascends. `finite` is false if a value is not.
char* peft_nf4_quantise(const Tensor* x, const Tensor* map, Tensor** codes, Tensor** absmax, bool* finite) {
  return guarded([&] {
    TORCH_CHECK(x->is_cpu() && x->is_contiguous() && map->is_contiguous() && map->numel() == 16, "nf4: quantise");
    const int64_t n = x->numel();
    Tensor bytes = at::empty({blocks(n, 2), 1}, at::kByte), scales = at::empty({blocks(n, BLOCK)}, at::kFloat);
    const auto* code = map->const_data_ptr<float>();
    float middle[15];
    for (int i = 0; i < 15; i++) middle[i] = (code[i] + code[i + 1]) / 2;
    std::atomic<bool> all_finite{true};
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, x->scalar_type(), "nf4", [&] {
      const auto* from = x->const_data_ptr<scalar_t>();
      auto* to = bytes.mutable_data_ptr<uint8_t>();
      auto* scale = scales.mutable_data_ptr<float>();
      at::parallel_for(0, blocks(n, BLOCK), GRAIN, [&](int64_t begin, int64_t end) {
        for (int64_t b = begin; b < end; b++) {
          const int64_t count = std::min(BLOCK, n - b * BLOCK);
          float v[BLOCK], most = 0;
          bool ok = true;
          for (int64_t i = 0; i < count; i++) {
            v[i] = static_cast<float>(from[b * BLOCK + i]);
            ok &= std::isfinite(v[i]);
            most = std::max(most, std::fabs(v[i]));
          }
          if (!ok) all_finite = false;
          scale[b] = most;
          // bitsandbytes multiplies by the reciprocal, but divides in a block that is not full.
          const float divisor = std::max(most, 1e-38f), factor = 1 / divisor;
          uint8_t q[BLOCK + 1];
          for (int64_t i = 0; i < count; i++) {
            const float u = std::clamp(count == BLOCK ? v[i] * factor : v[i] / divisor, -1.f, 1.f);
            uint8_t below = 0;
            for (float m : middle) below += m < u;
            q[i] = below;
          }
          q[count] = 7;  // zero, where the last byte has room
          for (int64_t i = 0; i < count; i += 2) to[b * (BLOCK / 2) + i / 2] = q[i] << 4 | q[i + 1];
        }
      });
    });
    *finite = all_finite;
    *codes = new Tensor(bytes);
    *absmax = new Tensor(scales);
  });
}

// Scales as bytes: of z = absmax - mean, the nearest of `map` to z / max|z| on a grid of 65536 steps, which is how
// bitsandbytes' CPU side finds it.
char* peft_nf4_quantise_scales(const Tensor* absmax, const Tensor* map, Tensor** bytes, Tensor** nested_absmax,
                               double* offset) {
  return guarded([&] {
    TORCH_CHECK(absmax->is_cpu() && map->is_contiguous() && map->numel() == 256, "nf4: quantise scales");
    const Tensor mean = absmax->mean(), z = absmax->sub(mean);
    const int64_t n = z.numel();
    Tensor q = at::zeros({n}, at::kByte), scales = at::zeros({blocks(n, NESTED_BLOCK)}, at::kFloat);
    const auto* values = map->const_data_ptr<float>();
    const auto* v = z.const_data_ptr<float>();
    auto* to = q.mutable_data_ptr<uint8_t>();
    for (int64_t b = 0; b < scales.numel(); b++) {
      const int64_t begin = b * NESTED_BLOCK, end = std::min(n, begin + NESTED_BLOCK);
      float most = 0;
      for (int64_t i = begin; i < end; i++) most = std::max(most, std::fabs(v[i]));
      scales.mutable_data_ptr<float>()[b] = most;
      if (most == 0) continue;
      const float factor = 1 / most;
      for (int64_t i = begin; i < end; i++) {
        const float u = std::clamp(v[i] * factor, -1.f, 1.f);
        const float step = std::floor((u + 1) * 0.5f * 65535 + 0.5f);
        to[i] = static_cast<uint8_t>(nearest(values, 256, step / 65535 * 2 - 1));
      }
    }
    *offset = mean.item<double>();
    *bytes = new Tensor(q);
    *nested_absmax = new Tensor(scales);
  });
}

// `parts`: codes, map, absmax, nested_absmax, nested_map (the last two may be null).
char* peft_nf4_dequantise(Tensor** parts, double offset, int64_t rows, int64_t cols, int dtype, bool portable,
                          Tensor** out) {
  return guarded([&] {
    c10::NoGradGuard no_grad;
    *out = new Tensor(packed(parts, offset, rows, cols, dtype).dense(portable));
  });
}

char* peft_nf4_linear(const Tensor* x, Tensor** parts, double offset, int64_t rows, int64_t cols, int dtype,
                      const Tensor* bias, Tensor** out) {
  return guarded([&] {
    const auto b = bias ? std::optional<Tensor>(*bias) : std::nullopt;
    *out = new Tensor(Linear::apply(*x, b, packed(parts, offset, rows, cols, dtype)));
  });
}

}  // extern "C"
