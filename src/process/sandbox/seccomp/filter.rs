//! A seccomp filter: the system calls that it answers in the place of the kernel, and their compilation to BPF.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

use crate::process::sandbox::error::SandboxError;

/// What a program is told in the place of the call. Where two apply, the kernel gives the later one of this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Answer {
    /// It is done. Nothing is.
    Done,
    /// It is not permitted.
    Refused,
    /// The kernel does not have this call. Programs are prepared for that, and make an older one.
    Unknown,
    /// The kernel does not have this protocol.
    NoProtocol,
    /// The file system does not have this operation.
    Unsupported,
}

impl Answer {
    const fn errno(self) -> libc::c_int {
        match self {
            Self::Done => 0,
            Self::Refused => libc::EPERM,
            Self::Unknown => libc::ENOSYS,
            Self::NoProtocol => libc::EPROTONOSUPPORT,
            Self::Unsupported => libc::EOPNOTSUPP,
        }
    }
}

/// When a call gets its answer.
#[derive(Debug, Clone)]
enum When {
    Always,
    Any(Vec<SeccompRule>),
}

/// What an argument of a call is compared with, of 32 bits where nothing else is said.
#[derive(Debug, Clone, Copy)]
pub(super) enum Is {
    /// It points to something. (All 64 bits.)
    There,
    /// It is this.
    Equal(u64),
    /// It is not this.
    Not(u64),
    /// These bits are set.
    With(u64),
    /// Of the bits of the first, those of the second are set.
    Masked(u64, u64),
}

/// Matches a call of which all these arguments, each with its number, are like that.
///
/// # Errors
/// There is no such argument.
pub(super) fn rule(arguments: &[(u8, Is)]) -> Result<SeccompRule, BackendError> {
    let condition = |(argument, is): &(u8, Is)| {
        let width = if matches!(is, Is::There) { SeccompCmpArgLen::Qword } else { SeccompCmpArgLen::Dword };
        let (op, value) = match *is {
            Is::There => (SeccompCmpOp::Ne, 0),
            Is::Equal(value) => (SeccompCmpOp::Eq, value),
            Is::Not(value) => (SeccompCmpOp::Ne, value),
            Is::With(bits) => (SeccompCmpOp::MaskedEq(bits), bits),
            Is::Masked(mask, value) => (SeccompCmpOp::MaskedEq(mask), value),
        };
        SeccompCondition::new(*argument, width, op, value)
    };
    SeccompRule::new(arguments.iter().map(condition).collect::<Result<_, _>>()?)
}

/// A number of the C library as a filter sees it.
pub(super) const fn number(value: libc::c_int) -> u64 {
    value.cast_unsigned() as u64
}

/// System calls that are refused: each always, or under conditions.
#[derive(Debug, Clone, Default)]
pub struct Denials {
    answers: BTreeMap<Answer, BTreeMap<i64, When>>,
}

impl Denials {
    /// Refuses these calls whatever their arguments are.
    pub fn always(&mut self, calls: &[i64]) -> &mut Self {
        self.answer_always(Answer::Refused, calls)
    }

    /// Answers these calls as if the kernel did not have them.
    pub(super) fn unknown(&mut self, calls: &[i64]) -> &mut Self {
        self.answer_always(Answer::Unknown, calls)
    }

    pub(super) fn answer_always(&mut self, answer: Answer, calls: &[i64]) -> &mut Self {
        let answers = self.answers.entry(answer).or_default();
        answers.extend(calls.iter().map(|call| (*call, When::Always)));
        self
    }

    /// Answers a call so where this matches, or what was given for it before.
    pub(super) fn when(&mut self, answer: Answer, call: i64, rule: SeccompRule) -> &mut Self {
        let when = self.answers.entry(answer).or_default().entry(call).or_insert_with(|| When::Any(Vec::new()));
        if let When::Any(rules) = when {
            rules.push(rule);
        }
        self
    }

    /// Takes them from the calling thread, which must have no-new-privileges, and all that it starts.
    ///
    /// # Errors
    /// The system refuses.
    pub fn apply(&self) -> Result<(), SandboxError> {
        let failed = SandboxError::refused("seccomp");
        for program in self.programs().map_err(|error| failed(&error))? {
            seccompiler::apply_filter(&program).map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    /// The filters, in the order in which they are put in force: a filter has one answer for all that it refuses. A filter
    /// for nothing is among them where there is no other, so that [`apply`](Self::apply) says whether the kernel has any.
    fn programs(&self) -> Result<Vec<BpfProgram>, BackendError> {
        let mut answers = self.answers.clone();
        answers.entry(Answer::Refused).or_default();
        let programs = answers.into_iter().map(|(answer, calls)| program(calls, answer.errno()));
        [Ok(newer())].into_iter().chain(programs).collect()
    }

    /// The instructions that they come to.
    pub fn instructions(&self) -> usize {
        self.programs().map_or(0, |programs| programs.iter().map(Vec::len).sum())
    }
}

fn program(calls: BTreeMap<i64, When>, errno: libc::c_int) -> Result<BpfProgram, BackendError> {
    let rules = calls.into_iter().map(|(call, when)| match when {
        // For the compiler no rule means: in any case.
        When::Always => (call, Vec::new()),
        When::Any(rules) => (call, rules),
    });
    let answer = SeccompAction::Errno(errno.cast_unsigned());
    SeccompFilter::new(rules.collect(), SeccompAction::Allow, answer, std::env::consts::ARCH.try_into()?)?.try_into()
}

/// The first number that no system call had when the lists here were made (Linux 7.0), on any architecture.
const FIRST_UNKNOWN: u32 = 472;

/// Takes away all system calls that are newer than the lists here, so that none of them is a way around: programs are
/// prepared for kernels without them. On x86-64 this takes away x32 too, the second form of all calls, some of them under
/// numbers of their own: its numbers have a bit that makes them larger than any other.
fn newer() -> BpfProgram {
    let step = |code: u32, jt, jf, k| sock_filter { code: code as u16, jt, jf, k };
    vec![
        // The number of the call, which is what the description of a call begins with.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, FIRST_UNKNOWN),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, SeccompAction::Errno(libc::ENOSYS.cast_unsigned()).into()),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, SeccompAction::Allow.into()),
    ]
}
