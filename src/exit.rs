//! Exit statuses of the program, as scripts and the kubelet see them.

/// All went well.
pub const SUCCESS: u8 = 0;

/// Something went wrong.
pub const FAILURE: u8 = 1;

/// The command line or the environment is wrong: `EX_USAGE` of sysexits.h.
pub const USAGE: u8 = 64;
