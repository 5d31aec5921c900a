"""LoRA training of lesson seed 000 in PyTorch, with the lesson's definitions and random draws, step by step.

    python lesson_lora.py            # trains as the lesson does, prints accuracies and step times
    python lesson_lora.py --trace    # every loss, as `section step f32-bits`
    python lesson_lora.py --serve    # prints `ready`; each line `step K` on stdin trains K steps more
                                     # and answers with one line {"ms": [...], "loss": [...]}

A step is zero_grad, forward, backward and Adam's update over the 160 training rows. Losses are those before the
update, as the eight hex digits of the f32.
"""

import argparse
import copy
import json
import statistics
import struct
import sys
import time

import torch
import torch.nn as nn
import torch.optim as optim

D, VOCAB, SEQ, N_CLS, N = 32, 100, 10, 4, 200


class TinyLayer(nn.Module):
    def __init__(self, d=D):
        super().__init__()
        self.attn = nn.MultiheadAttention(d, 4, batch_first=True)
        self.ff = nn.Sequential(nn.Linear(d, d * 4), nn.GELU(), nn.Linear(d * 4, d))
        self.n1 = nn.LayerNorm(d)
        self.n2 = nn.LayerNorm(d)

    def forward(self, x):
        a, _ = self.attn(x, x, x)
        x = self.n1(x + a)
        return self.n2(x + self.ff(x))


class TinyModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, D)
        self.layers = nn.ModuleList([TinyLayer() for _ in range(2)])
        self.head = nn.Linear(D, N_CLS)

    def forward(self, x):
        h = self.embed(x)
        for layer in self.layers:
            h = layer(h)
        return self.head(h.mean(1))


class Adapter(nn.Module):
    def __init__(self, d=D, r=4):
        super().__init__()
        self.down = nn.Linear(d, r)
        self.act = nn.GELU()
        self.up = nn.Linear(r, d)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)


class LoRALinear(nn.Module):
    def __init__(self, linear, r=4, alpha=8):
        super().__init__()
        d_out, d_in = linear.weight.shape
        self.frozen = linear
        self.A = nn.Parameter(torch.randn(r, d_in) * 0.01)
        self.B = nn.Parameter(torch.zeros(d_out, r))
        self.scale = alpha / r

    def forward(self, x):
        return self.frozen(x) + (x @ self.A.T @ self.B.T) * self.scale


class Training:
    """The lesson's `run`, one step at a time."""

    def __init__(self, model, x, y, lr):
        self.model, self.x, self.y = model, x, y
        self.optimizer = optim.Adam([p for p in model.parameters() if p.requires_grad], lr=lr)
        self.loss = nn.CrossEntropyLoss()
        model.train()

    def step(self):
        """The loss before the update, and the milliseconds taken."""
        start = time.perf_counter()
        self.optimizer.zero_grad()
        loss = self.loss(self.model(self.x), self.y)
        loss.backward()
        self.optimizer.step()
        return loss.detach(), (time.perf_counter() - start) * 1e3

    def steps(self, count):
        done = [self.step() for _ in range(count)]
        return [bits(loss) for loss, _ in done], [round(ms, 4) for _, ms in done]


def bits(loss):
    return struct.pack(">f", loss.item()).hex()


def accuracy(model, x, y):
    model.eval()
    with torch.no_grad():
        return (model(x).argmax(1) == y).float().mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--trace", action="store_true", help="print every loss as f32 bits")
    parser.add_argument("--serve", action="store_true", help="train as told on stdin")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    # The draws, in the lesson's order.
    torch.manual_seed(0)
    x = torch.randint(0, VOCAB, (N, SEQ))
    y = torch.randint(0, N_CLS, (N,))
    base = TinyModel()
    pretrain_loss, _ = Training(base, x[:160], y[:160], lr=1e-3).steps(60)
    for _ in base.layers:
        Adapter()  # the lesson's adapters are drawn before LoRA's matrices; their training draws nothing
    model = copy.deepcopy(base)
    for layer in model.layers:
        layer.ff[0] = LoRALinear(layer.ff[0])
    for name, p in model.named_parameters():
        p.requires_grad = name.endswith((".A", ".B"))
    training = Training(model, x[:160], y[:160], lr=3e-3)

    if args.serve:
        print("ready", flush=True)
        for line in sys.stdin:
            loss, ms = training.steps(steps_of(line))
            print(json.dumps({"ms": ms, "loss": loss}), flush=True)
        return

    loss, ms = training.steps(80)
    if args.trace:
        for section, losses in ("pretrain", pretrain_loss), ("lora", loss):
            for i, each in enumerate(losses):
                print(section, i, each)
        return
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    print(f"Pre-trained accuracy: {accuracy(base, x[160:], y[160:]):.2%}")
    print(f"LoRA trainable : {trainable:,} / {total:,}  ({trainable / total:.2%})")
    print(f"LoRA accuracy  : {accuracy(model, x[160:], y[160:]):.2%}")
    print(f"step: median {statistics.median(ms):.3f} ms, mean {statistics.mean(ms):.3f} ms, {args.threads} thread(s)")


def steps_of(line):
    word, _, count = line.strip().partition(" ")
    if word != "step" or not count.isdigit():
        sys.exit(f"not understood: {line.strip()!r}; say `step K`")
    return int(count)


if __name__ == "__main__":
    main()
