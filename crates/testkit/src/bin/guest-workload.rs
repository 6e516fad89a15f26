//! The program that runs inside a guest; see [`drover_testkit::workload`].

fn main() -> std::process::ExitCode {
    eprintln!("guest-workload: {}", drover_testkit::workload::run::run());
    std::process::ExitCode::FAILURE
}
