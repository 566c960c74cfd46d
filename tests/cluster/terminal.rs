//! The stock client at a real terminal.

use super::harness::{Guarded, until};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};
use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

/// A program whose standard input and output are a terminal, and its error output is not.
pub struct AtTerminal {
    child: Guarded,
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
    showing: std::thread::JoinHandle<()>,
    complaints: std::thread::JoinHandle<Vec<u8>>,
}

impl AtTerminal {
    /// Starts the program.
    pub fn start(mut command: Command) -> AtTerminal {
        let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&near).expect("it is ours");
        unlockpt(&near).expect("it is ours");
        let name = ptsname(&near, Vec::new()).expect("it has a name");
        let far = rustix::fs::open(&*name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty());
        let far = File::from(far.expect("it was unlocked"));
        command.stdin(far.try_clone().expect("a descriptor")).stdout(far).stderr(Stdio::piped());
        let mut child = Guarded(command.spawn().expect("ssh can be started"));
        // With the command goes our copy of the far end: reading ends when the program does.
        drop(command);
        let mut stderr = child.0.stderr.take().expect("it was piped");
        let complaints = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stderr.read_to_end(&mut bytes).map(|_| bytes).expect("a pipe can be read")
        });
        let keyboard = File::from(near);
        let mut shown = keyboard.try_clone().expect("a descriptor");
        let screen = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&screen);
        let showing = std::thread::spawn(move || {
            let mut piece = [0; 4096];
            // A terminal without a program reads as an error.
            while let Ok(bytes @ 1..) = shown.read(&mut piece) {
                written.lock().expect("nobody panics with it").extend(&piece[..bytes]);
            }
        });
        AtTerminal { child, keyboard, screen, showing, complaints }
    }

    /// Waits until the program takes keys as they are, so that no kernel answers them.
    #[track_caller]
    pub fn until_raw(&self) {
        self.until_mode(LocalModes::ICANON, false);
    }

    /// Waits until the terminal has this mode, or has it no more.
    #[track_caller]
    pub fn until_mode(&self, mode: LocalModes, wanted: bool) {
        until(&format!("the terminal has {mode:?}: {wanted}"), || {
            let modes = tcgetattr(&self.keyboard).expect("it is a terminal").local_modes;
            (modes.contains(mode) == wanted).then_some(())
        });
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).expect("a terminal takes keys");
    }

    /// Waits until the screen holds this.
    #[track_caller]
    pub fn until_shown(&self, text: &str) {
        until(&format!("{text:?} is shown"), || self.screen().contains(text).then_some(()));
    }

    /// Everything that was shown.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().expect("nobody panics with it")).into_owned()
    }

    /// Waits for its end: exit status, screen, error output.
    #[track_caller]
    pub fn end(mut self) -> (Option<i32>, String, String) {
        let status = until("the client ends", || {
            self.child.0.try_wait().expect("a child can be waited for")
        });
        let said = self.complaints.join().expect("reading does not panic");
        self.showing.join().expect("reading does not panic");
        let screen = self.screen.lock().expect("nobody panics with it");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (status.code(), text(&screen), text(&said))
    }
}
