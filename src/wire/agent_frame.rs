//! What a controller and its agent on a host say to one another, as bytes: four of length,
//! big-endian, and a MessagePack value with named fields.
//!
//! Names, and not places, because the two ends may be of different versions until an upgrade is
//! over; a field more is passed over.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Write};

/// No frame is longer: files of settings and keys, and the last lines of a log.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

/// Writes one frame.
///
/// # Errors
/// When it cannot be written, or is longer than [`FRAME_BYTES_MAX`].
pub fn write_frame(to: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let body = rmp_serde::to_vec_named(value).map_err(io::Error::other)?;
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= FRAME_BYTES_MAX);
    let Some(length) = length else {
        let message = format!("{} bytes do not fit into a frame", body.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    };
    to.write_all(&length.to_be_bytes())?;
    to.write_all(&body)?;
    to.flush()
}

/// Reads one frame by way of `read_exact`.
///
/// # Errors
/// When it cannot be read, is longer than [`FRAME_BYTES_MAX`], or is something else.
pub fn read_frame<T: DeserializeOwned>(
    mut read_exact: impl FnMut(&mut [u8]) -> io::Result<()>,
) -> io::Result<T> {
    let mut length = [0; 4];
    read_exact(&mut length)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        let message = format!("a frame of {length} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let mut body = vec![0; length];
    read_exact(&mut body)?;
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    rmp_serde::from_slice(&body).map_err(invalid)
}
