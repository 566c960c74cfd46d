//! What the operating system knows of this process, asked for each time the page is made.
//!
//! Read from `/proc`; where there is none, the series are missing rather than zero.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use std::fmt;
use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Process {
    /// Since the beginning of 1970, on the machine's clock.
    started: Duration,
}

impl Process {
    /// Of a process that starts now.
    pub(super) fn starts() -> Process {
        // A clock that is set before 1970 shows as just that.
        Process { started: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let e = &mut encoder;
        let started = self.started.as_secs_f64();
        gauge(e, "start_time_seconds", "when this process started, as Unix time", started)?;
        if let Some(bytes) = resident_bytes() {
            gauge(e, "resident_memory_bytes", "memory of this process", bytes)?;
        }
        if let Some(count) = open_descriptors() {
            gauge(e, "open_fds", "open file descriptors of this process", count)?;
        }
        Ok(())
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: impl EncodeGaugeValue,
) -> Result<(), fmt::Error> {
    let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    ConstGauge::new(value).encode(metric)
}

fn resident_bytes() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

fn open_descriptors() -> Option<i64> {
    let count = i64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok()?;
    // One of them is the directory that is being read.
    Some(count - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_descriptors_are_found() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1 << 20));
        let before = open_descriptors().unwrap();
        assert!((3..10_000).contains(&before), "{before}");
    }
}
