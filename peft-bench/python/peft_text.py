"""Text classification with Python PEFT, for comparison with peft-bench.

    python peft_text.py --model DIR --train TRAIN.jsonl --test TEST.jsonl [--method lora|dora|full] [--seed N] ...
    python peft_text.py ... --serve    # prints `ready`; each line `step K` on stdin trains K steps more
                                       # and answers with one line {"ms": [...]}

Rows are {"text": ..., "label": ...}, one a line; labels are numbered in sorted order. The model is a BERT with a fresh
classification head; LoRA and DoRA (r = 8, alpha = 16) adapt query and value of every layer and train the head with
them, `full` trains everything. AdamW with torch's defaults, a learning rate that falls to zero along a line,
cross entropy, no gradient clipping; the model's own dropout is on during training.

Rows are tokenised once, before anything is timed. A step is: pad a batch to its longest row, zero_grad, forward,
backward, update. Evaluation is not part of it.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import time
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
import transformers  # noqa: E402
from peft import LoraConfig, TaskType, get_peft_model  # noqa: E402
from transformers import AutoModelForSequenceClassification, AutoTokenizer, get_linear_schedule_with_warmup  # noqa: E402


def arguments():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", required=True, help="directory as the Hub lays it out")
    p.add_argument("--train", required=True)
    p.add_argument("--test", required=True)
    p.add_argument("--method", choices=["lora", "dora", "full"], default="lora")
    p.add_argument("--r", type=int, default=8)
    p.add_argument("--alpha", type=int, default=16)
    p.add_argument("--dropout", type=float, default=0.0, help="of the adapters' input")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--epochs", type=int, default=3)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--lr", type=float, default=2e-3, help="5e-5 is usual with --method full")
    p.add_argument("--weight-decay", type=float, default=0.01)
    p.add_argument("--warmup", type=float, default=0.0, help="share of the steps")
    p.add_argument("--steps", type=int, help="stop after so many steps")
    p.add_argument("--max-length", type=int, default=256, help="in tokens; never more than the model has positions for")
    p.add_argument("--threads", type=int, help="by default as many as torch thinks fit")
    p.add_argument("--json", action="store_true", help="print one JSON object")
    p.add_argument("--serve", action="store_true", help="train as told on stdin")
    return p.parse_args()


def rows(path):
    with open(path, encoding="utf-8") as f:
        read = [json.loads(line) for line in f if line.strip()]
    return [r["text"] for r in read], [r["label"] for r in read]


def build(args, labels):
    model = AutoModelForSequenceClassification.from_pretrained(
        args.model, num_labels=labels, local_files_only=True, dtype=torch.float32
    )
    if args.method == "full":
        return model
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=args.r,
        lora_alpha=args.alpha,
        lora_dropout=args.dropout,
        target_modules=["query", "value"],
        use_dora=args.method == "dora",
    )
    return get_peft_model(model, config)


class Rows:
    """Tokenised rows, handed out in batches padded to their longest row."""

    def __init__(self, ids, labels, pad):
        self.ids = [torch.tensor(i) for i in ids]
        self.labels = torch.tensor(labels)
        self.pad = pad

    def __len__(self):
        return len(self.ids)

    def batch(self, which):
        ids = [self.ids[i] for i in which]
        lengths = torch.tensor([len(i) for i in ids])
        padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=self.pad)
        mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long()
        return padded, mask, self.labels[which]


class Training:
    def __init__(self, args, model, data):
        self.model, self.data, self.size = model, data, args.batch
        self.per_epoch = -(-len(data) // args.batch)
        self.total = self.per_epoch * args.epochs
        if args.steps is not None:
            self.total = min(self.total, args.steps)
        self.optimizer = torch.optim.AdamW(
            [p for p in model.parameters() if p.requires_grad], lr=args.lr, weight_decay=args.weight_decay
        )
        self.schedule = get_linear_schedule_with_warmup(self.optimizer, int(args.warmup * self.total), self.total)
        self.shuffle = torch.Generator().manual_seed(args.seed)
        self.order = []
        model.train()

    def step(self):
        """The loss before the update, and the milliseconds taken."""
        if not self.order:
            shuffled = torch.randperm(len(self.data), generator=self.shuffle)
            self.order = list(reversed(shuffled.split(self.size)))
        start = time.perf_counter()
        ids, mask, labels = self.data.batch(self.order.pop())
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(input_ids=ids, attention_mask=mask).logits, labels)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()
        ms = (time.perf_counter() - start) * 1e3
        return loss.item(), round(ms, 4)


@torch.no_grad()
def accuracy(model, data, size=64):
    model.eval()
    right = 0
    for which in torch.arange(len(data)).split(size):
        ids, mask, labels = data.batch(which)
        right += (model(input_ids=ids, attention_mask=mask).logits.argmax(1) == labels).sum().item()
    return right / len(data)


def peak_rss_mb():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def serve(training):
    print("ready", flush=True)
    for line in sys.stdin:
        word, _, count = line.strip().partition(" ")
        if word != "step" or not count.isdigit():
            sys.exit(f"not understood: {line.strip()!r}; say `step K`")
        print(json.dumps({"ms": [training.step()[1] for _ in range(int(count))]}), flush=True)


def main():
    args = arguments()
    warnings.filterwarnings("ignore", category=FutureWarning)  # of PEFT's calls into transformers
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if args.threads:
        torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)

    train_text, train_label = rows(args.train)
    test_text, test_label = rows(args.test)
    names = sorted(set(train_label))
    number = {name: i for i, name in enumerate(names)}
    model = build(args, len(names))
    tokenizer = AutoTokenizer.from_pretrained(args.model, local_files_only=True)
    longest = min(args.max_length, tokenizer.model_max_length, model.config.max_position_embeddings)

    def tokenised(text, label):
        ids = tokenizer(text, truncation=True, max_length=longest, padding=False)["input_ids"]
        return Rows(ids, [number[each] for each in label], tokenizer.pad_token_id)

    train, test = tokenised(train_text, train_label), tokenised(test_text, test_label)
    training = Training(args, model, train)
    if args.serve:
        return serve(training)

    losses, ms = [], []
    for _ in range(training.total):
        loss, each = training.step()
        losses.append(loss)
        ms.append(each)
    last = losses[(len(losses) - 1) // training.per_epoch * training.per_epoch :]
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    result = {
        "method": args.method,
        "seed": args.seed,
        "threads": torch.get_num_threads(),
        "steps": len(ms),
        "step_ms_median": round(statistics.median(ms), 3),
        "step_ms_mean": round(statistics.mean(ms), 3),
        "train_loss_last_epoch": round(statistics.mean(last), 4),
        "test_accuracy": round(accuracy(model, test), 4),
        "trainable": trainable,
        "total": total,
        "peak_rss_mb": round(peak_rss_mb(), 1),
    }
    if args.json:
        print(json.dumps(result))
        return
    print(f"trainable params: {trainable:,} || all params: {total:,} || trainable%: {100 * trainable / total:.4f}")
    print(f"test accuracy: {result['test_accuracy']:.2%}")
    print(f"train loss of the last epoch: {result['train_loss_last_epoch']:.4f}")
    took = f"median {result['step_ms_median']:.2f} ms, mean {result['step_ms_mean']:.2f} ms"
    print(f"step: {took}, {result['threads']} thread(s), {len(ms)} steps")
    print(f"peak RSS: {result['peak_rss_mb']:.0f} MB")


if __name__ == "__main__":
    main()
