//! The pickle's program: a stack of values, and the instructions with which `torch.save` writes them (protocols 2 to 5).

use crate::io::pickle::archive::Archive;
use crate::io::pickle::refusal::{Refusal, Refused, broken, foreign};
use crate::io::pickle::value::{Global, Heap, Value};
use std::collections::BTreeMap;

/// How many instructions there may be, each of which makes a value at most. A tensor needs about 40.
const MOST: usize = 1 << 22;

/// Runs a program to its end: the value that is left, and what it points to.
pub(super) fn run<'a>(program: &'a [u8], archive: &Archive<'_>) -> Refused<(Value<'a>, Heap<'a>)> {
    let mut machine = Machine { rest: program, ..Machine::default() };
    for _ in 0..MOST {
        let at = program.len().saturating_sub(machine.rest.len());
        match machine.step(archive).map_err(|e| e.at(&format!("byte {at}")))? {
            None => {}
            Some(value) if machine.rest.is_empty() => return Ok((value, machine.heap)),
            Some(_) => return broken(format!("goes on behind its end, {} bytes", machine.rest.len())),
        }
    }
    broken(format!("has more than {MOST} instructions: is it made to fill memory?"))
}

#[derive(Default)]
struct Machine<'a> {
    rest: &'a [u8],
    stack: Vec<Value<'a>>,
    /// How high the stack was at each open mark.
    marks: Vec<usize>,
    memo: BTreeMap<usize, Value<'a>>,
    heap: Heap<'a>,
}

impl<'a> Machine<'a> {
    /// One instruction; the value where it is the last one.
    fn step(&mut self, archive: &Archive<'_>) -> Refused<Option<Value<'a>>> {
        let [code] = self.bytes()?;
        let new = match code {
            0x80 => return self.protocol(),
            0x95 => return self.frame(),
            b'.' => return self.end(),
            b'(' => {
                self.marks.push(self.stack.len());
                return Ok(None);
            }
            // Remembering.
            b'q' => return self.remember(|m| m.length::<1>()),
            b'r' => return self.remember(|m| m.length::<4>()),
            0x94 => return self.remember(|m| Ok(m.memo.len())),
            b'h' => self.length::<1>().and_then(|at| self.recall(at))?,
            b'j' => self.length::<4>().and_then(|at| self.recall(at))?,
            // Small values.
            b'N' => Value::None,
            0x88 | 0x89 => Value::Bool,
            b'K' => Value::Int(i64::from(u8::from_le_bytes(self.bytes()?))),
            b'M' => Value::Int(i64::from(u16::from_le_bytes(self.bytes()?))),
            b'J' => Value::Int(i64::from(i32::from_le_bytes(self.bytes()?))),
            0x8a => Value::Int(self.long()?),
            b'G' => self.bytes::<8>().map(|_| Value::Float)?,
            0x8c => self.length::<1>().and_then(|n| self.text(n))?,
            b'X' => self.length::<4>().and_then(|n| self.text(n))?,
            0x8d => self.length::<8>().and_then(|n| self.text(n))?,
            // What holds others.
            b')' => self.heap.tuple(Vec::new()),
            0x85 => self.tuple(1)?,
            0x86 => self.tuple(2)?,
            0x87 => self.tuple(3)?,
            b't' => {
                let values = self.since_mark()?;
                self.heap.tuple(values)
            }
            b']' => self.heap.list(),
            b'}' => self.heap.dict(),
            b'a' => return self.fill(|m| Ok(vec![m.pop()?]), Heap::extend),
            b'e' => return self.fill(Self::since_mark, Heap::extend),
            b's' => return self.fill(|m| m.pop_many(2), |heap, to, v| heap.insert(to, &v)),
            b'u' => return self.fill(Self::since_mark, |heap, to, v| heap.insert(to, &v)),
            b'b' => return self.fill(Self::pop, Heap::build),
            // Names, calls and the bytes of tensors.
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                Value::Global(Global::named(module, name)?)
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => Value::Global(Global::named(module, name)?),
                _ => return broken("asks for a Python object by a name that is no text"),
            },
            b'R' => {
                let (arguments, function) = (self.pop()?, self.pop()?);
                self.heap.call(function, arguments)?
            }
            b'Q' => {
                let id = self.pop()?;
                self.heap.storage(id, archive)?
            }
            other => {
                return foreign(format!("has the instruction {other:#04x}, which weights do not need"));
            }
        };
        self.stack.push(new);
        Ok(None)
    }

    fn protocol(&mut self) -> Refused<Option<Value<'a>>> {
        match self.bytes()? {
            [2..=5] => Ok(None),
            [other] => broken(format!("is of protocol {other}, expected 2 to 5")),
        }
    }

    /// A promise of how many bytes follow; they are read one after another here.
    fn frame(&mut self) -> Refused<Option<Value<'a>>> {
        match self.length::<8>()? {
            n if n <= self.rest.len() => Ok(None),
            _ => Err(cut()),
        }
    }

    fn end(&mut self) -> Refused<Option<Value<'a>>> {
        let value = self.pop()?;
        match self.stack.is_empty() && self.marks.is_empty() {
            true => Ok(Some(value)),
            false => broken("ends with values that nothing takes"),
        }
    }

    fn remember(&mut self, at: impl FnOnce(&mut Self) -> Refused<usize>) -> Refused<Option<Value<'a>>> {
        let at = at(self)?;
        let top = self.pop()?;
        self.stack.push(top);
        self.memo.insert(at, top);
        Ok(None)
    }

    fn recall(&mut self, at: usize) -> Refused<Value<'a>> {
        match self.memo.get(&at) {
            Some(value) => Ok(*value),
            None => broken(format!("recalls value {at}, which it has not remembered")),
        }
    }

    /// Puts what is on top of the stack into what is below, which stays.
    fn fill<T>(
        &mut self,
        take: impl FnOnce(&mut Self) -> Refused<T>,
        put: impl FnOnce(&mut Heap<'a>, Value<'a>, T) -> Refused<()>,
    ) -> Refused<Option<Value<'a>>> {
        let values = take(self)?;
        let to = self.pop()?;
        self.stack.push(to);
        put(&mut self.heap, to, values).map(|()| None)
    }

    fn tuple(&mut self, n: usize) -> Refused<Value<'a>> {
        let values = self.pop_many(n)?;
        Ok(self.heap.tuple(values))
    }

    fn pop(&mut self) -> Refused<Value<'a>> {
        let value = self.pop_many(1)?.pop();
        value.ok_or_else(cut)
    }

    /// The last values in their order, all of them above the last mark.
    fn pop_many(&mut self, n: usize) -> Refused<Vec<Value<'a>>> {
        let floor = self.marks.last().copied().unwrap_or_default();
        let from = self.stack.len().checked_sub(n).filter(|from| *from >= floor);
        Ok(self.stack.split_off(from.ok_or("takes a value that is not there")?))
    }

    fn since_mark(&mut self) -> Refused<Vec<Value<'a>>> {
        let mark = self.marks.pop().filter(|mark| *mark <= self.stack.len());
        Ok(self.stack.split_off(mark.ok_or("takes values since a mark that is not there")?))
    }

    fn slice(&mut self, n: usize) -> Refused<&'a [u8]> {
        let (slice, rest) = self.rest.split_at_checked(n).ok_or_else(cut)?;
        self.rest = rest;
        Ok(slice)
    }

    fn bytes<const N: usize>(&mut self) -> Refused<[u8; N]> {
        self.slice(N)?.try_into().map_err(|_| cut())
    }

    /// An unsigned number of `N` bytes.
    fn length<const N: usize>(&mut self) -> Refused<usize> {
        let number = self
            .slice(N)?
            .iter()
            .rev()
            .try_fold(0usize, |n, b| n.checked_mul(256)?.checked_add(usize::from(*b)));
        number.ok_or_else(|| "has a length that cannot be".into())
    }

    /// A signed number of as many bytes as the first one says.
    fn long(&mut self) -> Refused<i64> {
        let n = self.length::<1>()?;
        let bytes = self.slice(n)?;
        let sign = if bytes.last().is_some_and(|b| *b > 127) { 255 } else { 0 };
        let mut all = [sign; 8];
        match all.get_mut(..n) {
            Some(low) => low.copy_from_slice(bytes),
            None => return broken(format!("has a number of {n} bytes, expected 8 at most")),
        }
        Ok(i64::from_le_bytes(all))
    }

    fn text(&mut self, n: usize) -> Refused<Value<'a>> {
        utf8(self.slice(n)?).map(Value::Text)
    }

    /// Text to the end of the line.
    fn line(&mut self) -> Refused<&'a str> {
        let n = self.rest.iter().position(|b| *b == b'\n').ok_or_else(cut)?;
        let line = self.slice(n)?;
        self.slice(1)?;
        utf8(line)
    }
}

fn utf8(bytes: &[u8]) -> Refused<&str> {
    std::str::from_utf8(bytes).map_err(|e| format!("has a text that is none ({e})").into())
}

fn cut() -> Refusal {
    "is cut off: fetch or write the file again".into()
}
