//! Saving: nothing is overwritten unasked, what is overwritten is so as one, and a kill at any moment leaves all of the
//! old or all of the new.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod files;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod kills;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod others;
mod places;
