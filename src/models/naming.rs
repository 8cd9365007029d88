//! How a child process asks its parent whether the client that a proxy has named may have one more
//! connection. The parent has the counts.

use std::io::Read;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::address::Address;
use crate::models::interrupt::TOLD;
use crate::sys;

/// How long to wait for the server's answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// The first byte of a question, which is followed by the length of the client's address in two
/// bytes, and the address.
const NAME: u8 = 3;

const YES: u8 = 4;
const NO: u8 = 5;

/// Asks the parent, and waits for its answer. True if there is none, and from then on.
pub(super) fn ask(mut parent: &UnixStream, client: &Address) -> bool {
    let uri = client.to_string();
    let length = u16::try_from(uri.len()).unwrap_or(u16::MAX);
    let question = [&[NAME][..], &length.to_le_bytes(), uri.as_bytes()].concat();
    let asked = sys::send_all(parent, &question);

    let mut answer = [YES];
    if asked.is_ok() && parent.set_read_timeout(Some(PATIENCE)).is_ok() {
        let answered = parent.read_exact(&mut answer);
        if answered.is_err() {
            // An answer that comes too late would be taken for the answer to the next question.
            let _ = parent.shutdown(Shutdown::Read);
        }
    }
    answer != [NO]
}

/// Takes a question out of what a child has said, once it is complete.
pub(super) fn take(heard: &mut Vec<u8>) -> Option<Address> {
    let start = usize::from(heard.first() == Some(&TOLD));
    let (head, rest) = heard.get(start..)?.split_first_chunk::<3>()?;
    if head[0] != NAME {
        return None;
    }

    let length = usize::from(u16::from_le_bytes([head[1], head[2]]));
    let uri = String::from_utf8_lossy(rest.get(..length)?).into_owned();
    heard.drain(start..start + head.len() + length);
    uri.parse().ok()
}

/// Answers a child. If it does not hear the answer, it is gone or has waited for too long.
pub(super) fn answer(child: &UnixStream, has_room: bool) {
    let _ = sys::send(child, &[if has_room { YES } else { NO }]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_answer_is_not_taken_for_the_next_one() {
        let (child, parent) = UnixStream::pair().expect("a pair of sockets");
        let client: Address = "tcp://192.0.2.1:7".parse().expect("an address");
        assert!(ask(&child, &client), "no answer has come");

        answer(&parent, false);
        assert!(ask(&child, &client), "the answer was to the first question");
    }

    #[test]
    fn a_question_is_taken_out_when_it_is_complete() {
        let client: Address = "tcp://192.0.2.1:7".parse().expect("an address");
        let uri = client.to_string();
        let question = [&[NAME, 17, 0][..], uri.as_bytes()].concat();
        for before in [&[][..], &[TOLD]] {
            let whole = [before, &question].concat();
            for end in 0..whole.len() {
                let mut heard = whole[..end].to_vec();
                assert_eq!(take(&mut heard), None, "{end} bytes");
                assert_eq!(heard, whole[..end]);
            }

            let mut heard = [&whole[..], b"rest"].concat();
            assert_eq!(take(&mut heard).as_ref(), Some(&client));
            assert_eq!(heard, [before, b"rest"].concat());
        }
    }
}
