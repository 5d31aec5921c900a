//! Models and adapters from the Hub, by `peft fetch` from a server on loopback.

mod broken;
mod home;
mod refused;
mod server;
mod usual;
