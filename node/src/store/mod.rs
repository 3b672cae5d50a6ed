//! The disk below `polder_checkpoint::Store`. Simulations bring their own.

#[cfg(feature = "bin")]
mod rocks;
#[cfg(feature = "bin")]
mod wal;

#[cfg(feature = "bin")]
pub use rocks::{RocksOptions, RocksStore};
