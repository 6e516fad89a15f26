//! What crosses a host's network interfaces, written down by tcpdump in the host's network namespace.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::Cluster;

pub(crate) struct Capture {
    tcpdump: Child,
    file: PathBuf,
}

impl Capture {
    /// Everything that a host sends and receives from now on.
    pub(crate) fn on(cluster: &Cluster, host: &str) -> Self {
        let file = cluster.scratch("capture.pcap");
        let mut tcpdump = Command::new("nsenter")
            .args(["--target", &cluster.inspect(host, "{{.State.Pid}}"), "--net"])
            .args(["tcpdump", "--interface", "any", "-n", "--buffer-size", "65536", "-Z", "root", "-w"])
            .arg(&file)
            .args(["tcp"])
            .stderr(Stdio::piped())
            .spawn()
            .expect("nsenter (util-linux) runs");
        let said = BufReader::new(tcpdump.stderr.take().expect("a pipe"));
        assert!(said.lines().map_while(Result::ok).any(|line| line.contains("listening on")), "tcpdump does not listen");
        Self { tcpdump, file }
    }

    /// Ends it and returns what was seen.
    pub(crate) fn bytes(mut self) -> Vec<u8> {
        let pid = Pid::from_raw(i32::try_from(self.tcpdump.id()).expect("a pid"));
        kill(pid, Signal::SIGINT).expect("tcpdump lives"); // nsenter has become it.
        self.tcpdump.wait().expect("tcpdump ends");
        std::fs::read(&self.file).expect("the capture is there")
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.tcpdump.kill().ok();
        self.tcpdump.wait().ok();
        std::fs::remove_file(&self.file).ok();
    }
}

/// How often a text is in what was captured.
pub(crate) fn occurrences(bytes: &[u8], text: &str) -> usize {
    bytes.windows(text.len()).filter(|window| *window == text.as_bytes()).count()
}
