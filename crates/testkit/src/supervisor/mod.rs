//! Supervisors: who holds the bench's processes.
//!
//! Each host has one, and one more (`root`) holds what runs in the root network namespace. A supervisor is the first process of a
//! PID namespace of its own, which gives us four things for nothing: when it dies, the kernel ends everything below it, so nothing
//! can be left behind; every orphan becomes its child and is reaped at once (libvirt waits until a stopped QEMU, a daemon, is
//! reaped; with a lazy reaper every migration looks a second or two longer than it is); a restart of libvirtd leaves its QEMUs
//! where they are; and SIGKILL to it is the power cut of a host.
//!
//! ```text
//! drover-bench up ──spawn──> drover-bench supervise SPEC   (new session; enters the netns; unshares mount, UTS, IPC, PID)
//!                                 └─> drover-bench supervise SPEC --inside   (PID 1 there; mounts; serves SOCKET)
//!                                        ├─ libvirtd            started and stopped by requests over the socket
//!                                        ├─ drover-compute
//!                                        └─ qemu …              (orphans that libvirtd made)
//! ```
//!
//! [`spec`] says how the namespaces look, [`launch`] makes them, [`daemon`] is the process inside, [`protocol`] what is said over
//! the socket, and [`Supervisor`] the handle that everybody else uses.

mod client;
pub mod daemon;
mod daemon_spawn;
pub mod launch;
pub mod protocol;
pub mod spec;

pub use client::Supervisor;
