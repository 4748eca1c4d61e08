//! What a process must not live without.

/// Ends the process when its holder panics: lanes that stand still behind a service that looks well are worse than a restart, which loses
/// nothing.
#[derive(Debug)]
pub(crate) struct Vital(pub(crate) &'static str);

impl Drop for Vital {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!(
                "{} has panicked: the process ends, and goes on from its checkpoints when it is started again",
                self.0
            );
            std::process::abort();
        }
    }
}
