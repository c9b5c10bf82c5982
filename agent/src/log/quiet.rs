//! Log lines without their repetition: around the format of the lines, so that what is held back is never formatted.
//! Keeps nothing of a message but what would have stood in the log.

use std::fmt::{self, Debug, Write as _};
use std::io::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber, callsite};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::repeat::{INTERVAL, Repeated, Repeats};
use crate::config::LogFormat;

/// Where a message comes from, and how grave it is.
type Place = (callsite::Identifier, Level);

/// How often it is looked at whether something is due, when nothing is said meanwhile.
const LOOK: Duration = Duration::from_secs(10);

/// A format that leaves repetition out of warnings and errors. All else passes: that something is well again is no
/// repetition, and who asks for debug lines wants them.
pub(super) struct Quiet<F> {
    inner: F,
    told: Arc<Told>,
}

impl<F> Quiet<F> {
    pub(super) fn new(inner: F, told: Arc<Told>) -> Self {
        Self { inner, told }
    }
}

/// What was said, and how what was not is told.
pub(super) struct Told {
    format: LogFormat,
    clock: Box<dyn Fn() -> Duration + Send + Sync>,
    repeats: Mutex<Repeats<Place>>,
}

impl Told {
    pub(super) fn new(format: LogFormat, clock: impl Fn() -> Duration + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { format, clock: Box::new(clock), repeats: Mutex::new(Repeats::new()) })
    }

    /// Tells what is due to standard error for as long as the process lives, so that a log that ends with "well" while
    /// nothing is does not stay so.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn keep_telling(self: Arc<Self>) -> std::io::Result<()> {
        let tell = move || loop {
            std::thread::sleep(LOOK);
            // Nobody is left to tell when standard error is gone.
            let _ = write!(std::io::stderr(), "{}", self.due());
        };
        std::thread::Builder::new().name("warren-log".to_owned()).spawn(tell).map(|_| ())
    }

    /// The lines that are due.
    fn due(&self) -> String {
        let due = self.repeats.lock().unwrap_or_else(PoisonError::into_inner).due((self.clock)());
        let mut lines = String::new();
        let _ = due.iter().try_for_each(|told| self.tell(&mut Writer::new(&mut lines), told));
        lines
    }

    /// Whether this event is said.
    fn admit(&self, event: &Event<'_>) -> bool {
        let mut text = Text::default();
        event.record(&mut text);
        let place = (event.metadata().callsite(), *event.metadata().level());
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner).admit((self.clock)(), place, &text.0)
    }

    fn tell(&self, writer: &mut Writer<'_>, told: &Repeated<Place>) -> fmt::Result {
        let Repeated { place: (_, level), text, times, several } = told;
        let message = match several {
            true => "and others like it, left out",
            false => "repeated",
        };
        if self.format == LogFormat::Json {
            let mut timestamp = String::new();
            SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
            let fields = serde_json::json!({
                "message": message, "times": times, "within_seconds": INTERVAL.as_secs(), "of": text
            });
            let line = serde_json::json!({ "timestamp": timestamp, "level": level.as_str(), "fields": fields });
            return writeln!(writer, "{line}");
        }
        SystemTime.format_time(writer)?;
        write!(writer, " {:>5} ", level.as_str())?;
        // A name from a record must not reach a terminal as a command to it.
        let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
        let text: String = text.chars().map(escaped).collect();
        writeln!(writer, "{message} {times} times within {} s: {text}", INTERVAL.as_secs())
    }
}

impl<S, N, F> FormatEvent<S, N> for Quiet<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        writer.write_str(&self.told.due())?;
        if *event.metadata().level() > Level::WARN || self.told.admit(event) {
            return self.inner.format_event(ctx, writer, event);
        }
        Ok(())
    }
}

/// An event as text: the message, then its fields.
#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = match field.name() {
            "message" => {
                let message = format!("{value:?}");
                self.0.insert_str(0, &message);
                Ok(())
            }
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::config::Password;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        fn take(&self) -> Vec<String> {
            let bytes = std::mem::take(&mut *self.0.lock().expect("no panic"));
            String::from_utf8(bytes).expect("text").lines().map(str::to_owned).collect()
        }
    }

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged in this format, with a clock of our own.
    fn logged(format: LogFormat, body: impl FnOnce(&Lines, &AtomicU64)) {
        let (lines, seconds) = (Lines::default(), Arc::new(AtomicU64::new(0)));
        let writer = lines.clone();
        let clock = Arc::clone(&seconds);
        let clock = move || Duration::from_secs(clock.load(Ordering::Relaxed));
        let told = Told::new(format, clock);
        let builder = tracing_subscriber::fmt().with_max_level(Level::DEBUG).with_writer(move || writer.clone());
        match format {
            LogFormat::Text => {
                let subscriber = builder.with_ansi(false).map_event_format(|inner| Quiet::new(inner, told)).finish();
                tracing::subscriber::with_default(subscriber, || body(&lines, &seconds));
            }
            LogFormat::Json => {
                let subscriber = builder.json().map_event_format(|inner| Quiet::new(inner, told)).finish();
                tracing::subscriber::with_default(subscriber, || body(&lines, &seconds));
            }
        }
    }

    fn complain(peer: &str) {
        tracing::warn!(peer, password = ?Password("hunter2".to_owned()), "the peer is silent");
    }

    #[test]
    fn repetition_is_left_out_and_then_counted_without_secrets() {
        logged(LogFormat::Text, |lines, seconds| {
            (0..5).for_each(|_| complain("b"));
            complain("c\u{1b}[2J");
            complain("c\u{1b}[2J");
            let said = lines.take();
            assert_eq!(said.len(), 2, "{said:?}");
            seconds.store(60, Ordering::Relaxed);
            tracing::info!("something else");
            let said = lines.take();
            assert_eq!(said.len(), 3, "{said:?}");
            let of_b = said.iter().find(|line| line.contains("peer=\"b\"")).expect("it is told");
            assert!(of_b.contains("WARN repeated 4 times within 60 s: the peer is silent"), "{of_b}");
            assert!(said[2].ends_with("something else"));
            assert!(said.iter().all(|line| !line.contains("hunter2") && !line.contains('\u{1b}')), "{said:?}");
        });
    }

    #[test]
    fn in_json_every_line_is_an_object() {
        logged(LogFormat::Json, |lines, seconds| {
            (0..3).for_each(|_| complain("b"));
            seconds.store(61, Ordering::Relaxed);
            complain("b");
            let parsed = lines.take().into_iter().map(|line| serde_json::from_str(&line).expect("JSON"));
            let objects: Vec<serde_json::Value> = parsed.collect();
            assert_eq!(objects.len(), 3);
            assert_eq!(objects[1]["fields"]["message"], "repeated");
            assert_eq!((&objects[1]["fields"]["times"], &objects[1]["level"]), (&2.into(), &"WARN".into()));
            assert_eq!(objects[2]["fields"]["message"], "the peer is silent");
        });
    }

    #[test]
    fn what_is_no_complaint_is_said_each_time() {
        logged(LogFormat::Text, |lines, _| {
            (0..3).for_each(|_| tracing::debug!("looking"));
            (0..3).for_each(|_| tracing::info!("well again"));
            assert_eq!(lines.take().len(), 6);
        });
    }
}
