"""Times two training programs against each other, in turn, in one run.

    python side_by_side.py [--rounds N] [--steps K] [--warmup W] [--names A,B] [--json] [--equal-loss]
                           -- CMD... -- CMD...

Both programs print `ready` when they are set up and then answer every line `step K` on stdin with K training steps and
one line {"ms": [K numbers]}; with --equal-loss it has "loss": [K f32, in eight hex digits each] too. That is what
`--serve` of the programs beside this one does.

Both train W steps to warm up. Then in every round one trains K steps and after it the other, while the first one waits;
who begins changes from round to round. So what else the machine does, and how warm it is, hits both alike.

The ratios are the first program's time over the second's: of the medians over all steps, and the median over the rounds
of the ratio of the two medians within a round. --equal-loss compares all losses bit for bit, warm-up included.

Exit status: 0; 1 if a loss differs; 2 if a program fails or says something else.
"""

import argparse
import contextlib
import json
import re
import shlex
import statistics
import struct
import subprocess
import sys
import tempfile


class Failed(Exception):
    pass


class Program:
    def __init__(self, name, command, with_loss):
        self.name, self.command, self.with_loss = name, command, with_loss
        self.rounds, self.losses = [], []
        # In a file, since a pipe that nobody reads would stop the program.
        self.stderr = tempfile.TemporaryFile()
        pipe = subprocess.PIPE
        try:
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self.stderr, encoding="utf-8")
        except OSError as e:
            raise Failed(f"{name} does not start: {e}") from None

    def failed(self, what):
        self.stderr.seek(0)
        lines = self.stderr.read().decode(errors="replace").splitlines()
        text = [f"{self.name} {what}", f"  command: {' '.join(map(shlex.quote, self.command))}"]
        text += ["  last lines of its stderr:" if lines else "  nothing on its stderr"]
        text += ["    " + line for line in lines[-10:]]
        return Failed("\n".join(text))

    def line(self, after):
        try:
            line = self.process.stdout.readline()
        except UnicodeDecodeError:
            raise self.failed(f"printed what is not UTF-8 {after}") from None
        if not line.endswith("\n"):
            status = self.process.wait()
            how = f"with status {status}" if status >= 0 else f"by signal {-status}"
            raise self.failed(f"ended {how} {after}" + (f", printing {line[:200]!r}" if line else ""))
        return line.strip()

    def ready(self):
        line = self.line("before `ready`")
        if line != "ready":
            raise self.failed(f"printed {line[:200]!r} and not `ready`")

    def step(self, count):
        """The milliseconds of `count` steps more."""
        with contextlib.suppress(BrokenPipeError):  # of a program that has ended; `line` says so
            self.process.stdin.write(f"step {count}\n")
            self.process.stdin.flush()
        line = self.line(f"after `step {count}`")
        wrong = f"answered `step {count}` with {line[:200]!r}: "
        try:
            answer = json.loads(line)
        except ValueError:
            raise self.failed(wrong + "no JSON") from None
        ms = answer.get("ms") if isinstance(answer, dict) else None
        if not isinstance(ms, list) or len(ms) != count:
            raise self.failed(wrong + f'no "ms" with {count} numbers')
        if not all(type(each) in (int, float) and 0 < each < float("inf") for each in ms):
            raise self.failed(wrong + '"ms" has more than positive numbers in it')
        if self.with_loss:
            loss = answer.get("loss")
            if not isinstance(loss, list) or len(loss) != count:
                raise self.failed(wrong + f'no "loss" with {count} values')
            if not all(isinstance(each, str) and re.fullmatch("[0-9a-fA-F]{8}", each) for each in loss):
                raise self.failed(wrong + '"loss" has more than eight-digit hex numbers in it')
            self.losses += [each.lower() for each in loss]
        return ms

    def ms(self):
        return [each for ms in self.rounds for each in ms]

    def close(self):
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def measure(programs, args):
    for each in programs:
        each.ready()
    if args.warmup:
        for each in programs:
            each.step(args.warmup)
    for i in range(args.rounds):
        for each in programs if i % 2 == 0 else reversed(programs):
            each.rounds.append(each.step(args.steps))


def result(programs, args):
    first, second = programs
    ratios = [statistics.median(a) / statistics.median(b) for a, b in zip(first.rounds, second.rounds)]
    medians = [statistics.median(each.ms()) for each in programs]
    result = {"rounds": args.rounds, "steps": args.steps, "warmup": args.warmup, "programs": []}
    for each, median in zip(programs, medians):
        mean = statistics.mean(each.ms())
        times = {"median_ms": median, "mean_ms": mean, "min_ms": min(each.ms())}
        result["programs"].append({"name": each.name, **{k: round(v, 4) for k, v in times.items()}})
    result["ratio_of_medians"] = round(medians[0] / medians[1], 4)
    result["median_of_round_ratios"] = round(statistics.median(ratios), 4)
    if args.equal_loss:
        equal = [a == b for a, b in zip(first.losses, second.losses)]
        result["losses"] = {"compared": len(equal), "equal": sum(equal)}
        if not all(equal):
            i = equal.index(False)
            result["losses"]["first_difference"] = {"step": i, "loss": [first.losses[i], second.losses[i]]}
    return result


def show(result):
    print(f"{result['rounds']} rounds of {result['steps']} steps each, in turn, after {result['warmup']} to warm up")
    width = max(len(each["name"]) for each in result["programs"])
    for each in result["programs"]:
        times = (f"{key} {each[key + '_ms']:.3f} ms" for key in ("median", "mean", "min"))
        print(f"{each['name']:{width}}  {', '.join(times)}")
    names = "/".join(each["name"] for each in result["programs"])
    ratio, of_rounds = result["ratio_of_medians"], result["median_of_round_ratios"]
    print(f"{names}: {ratio:.3f} (ratio of medians), {of_rounds:.3f} (median of the rounds' ratios)")
    if "losses" in result:
        losses = result["losses"]
        print(f"losses: {losses['equal']} of {losses['compared']} equal bit for bit")
        if "first_difference" in losses:
            step, bits = losses["first_difference"]["step"], losses["first_difference"]["loss"]
            values = (f"{each} ({struct.unpack('>f', bytes.fromhex(each))[0]:.9g})" for each in bits)
            print(f"first difference: step {step}, {' and '.join(values)}")


def arguments():
    def at_least(least):
        def number(text):
            if int(text) < least:
                raise ValueError
            return int(text)

        return number

    usage = "%(prog)s [option ...] -- CMD ... -- CMD ..."
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0], usage=usage)
    p.add_argument("--rounds", type=at_least(1), default=10)
    p.add_argument("--steps", type=at_least(1), default=5, help="of each program in a round")
    p.add_argument("--warmup", type=at_least(0), default=3, help="steps of each program before the first round")
    p.add_argument("--names", default="first,second", metavar="A,B")
    p.add_argument("--json", action="store_true", help="print one JSON object")
    p.add_argument("--equal-loss", action="store_true", help="compare the losses bit for bit; exit 1 if one differs")
    parts = [[]]
    for each in sys.argv[1:]:
        if each == "--":
            parts.append([])
        else:
            parts[-1].append(each)
    args = p.parse_args(parts[0])
    if len(parts) != 3 or not all(parts[1:]):
        p.error("say two commands, each after one --; a command that has a -- of its own can go into a script")
    args.names = args.names.split(",")
    if len(args.names) != 2:
        p.error("--names takes two names with a comma between")
    return args, parts[1:]


def main():
    args, commands = arguments()
    programs = []
    try:
        try:
            for name, command in zip(args.names, commands):
                programs.append(Program(name, command, args.equal_loss))
            measure(programs, args)
        except BaseException:
            for each in programs:
                each.process.kill()
            raise
        finally:
            for each in programs:
                each.close()
    except Failed as e:
        print(e, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    found = result(programs, args)
    if args.json:
        print(json.dumps(found))
    else:
        show(found)
    return 1 if "first_difference" in found.get("losses", ()) else 0


if __name__ == "__main__":
    sys.exit(main())
