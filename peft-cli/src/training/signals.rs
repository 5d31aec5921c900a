//! Ctrl-C and SIGTERM: the first one asks to stop after the step, the second one stops at once.

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The exit code of a process that a second signal ends: what a shell says of Ctrl-C.
const STOPPED: i32 = 130;

/// Whether a signal has asked to stop.
#[derive(Debug, Clone)]
pub struct Signals(Arc<AtomicBool>);

impl Signals {
    /// Listens from now on.
    pub fn listen() -> Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: what is set now counts for the next one.
            flag::register_conditional_shutdown(signal, STOPPED, Arc::clone(&asked))
                .context("listening to signals")?;
            flag::register(signal, Arc::clone(&asked)).context("listening to signals")?;
        }
        Ok(Self(asked))
    }

    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
