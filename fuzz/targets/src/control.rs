//! Control messages, from users and from Rooms, alone and in a stream.

use std::fmt::Debug;

use parlor_protocol::limits::{CONTROL_FRAME, FRAME_BEFORE_LOGIN};
use parlor_protocol::wire::control::{FrameError, LENGTH_BYTES, ToRoom, ToUser, frame_length};

use crate::Verdict;

/// The bytes are a frame without its length, and then a stream of frames. What is read is written and read again:
/// it is the same, and no longer than it was.
pub fn control(data: &[u8]) -> Verdict {
    let alone = message(data);
    let mut in_stream = false;
    let mut rest = data;
    while let Some((prefix, after)) = rest.split_first_chunk::<LENGTH_BYTES>() {
        let Ok(length) = frame_length(*prefix, FRAME_BEFORE_LOGIN) else { break };
        let Some((frame, after)) = after.split_at_checked(length) else { break };
        in_stream |= message(frame);
        rest = after;
    }
    Verdict::accepted_if(alone || in_stream)
}

fn message(bytes: &[u8]) -> bool {
    // Nobody reads more than this.
    let bytes = &bytes[..bytes.len().min(CONTROL_FRAME)];
    let from_user = reads_back(bytes, ToRoom::decode, ToRoom::encode);
    let from_room = reads_back(bytes, ToUser::decode, ToUser::encode);
    assert!(!(from_user && from_room), "the two directions share no kind");
    from_user || from_room
}

fn reads_back<T: Debug + PartialEq>(
    bytes: &[u8],
    decode: fn(&[u8]) -> Result<T, FrameError>,
    encode: fn(&T) -> Vec<u8>,
) -> bool {
    let Ok(message) = decode(bytes) else { return false };
    let written = encode(&message);
    assert!(written.len() <= LENGTH_BYTES + bytes.len(), "{message:?} grew");
    let Some((prefix, frame)) = written.split_first_chunk() else { panic!("no length") };
    assert_eq!(frame_length(*prefix, CONTROL_FRAME), Ok(frame.len()));
    assert_eq!(decode(frame), Ok(message));
    true
}
