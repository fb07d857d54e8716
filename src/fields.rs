//! The bytes of the values that packets, configs and identities consist of: little-endian, one
//! after the other. What is written and what is read come from one list of fields.

use crate::ids::{
    DiskId, GroupId, Incarnation, Index, Member, Position, ProcessId, Run, ServerId, Term,
};
use crate::time::{Moment, WallTime};

/// A value with an encoding.
pub(crate) trait Field: Sized {
    /// Appends the value to `out`.
    fn write(&self, out: &mut Vec<u8>);
    /// Removes the value from the front of `rest`; returns `None` if no valid one is there.
    fn read(rest: &mut &[u8]) -> Option<Self>;
}

/// Reads a value that is all of `bytes`.
pub(crate) fn read_all<T: Field>(mut bytes: &[u8]) -> Option<T> {
    let value = T::read(&mut bytes)?;
    bytes.is_empty().then_some(value)
}

/// Encodes structs as their fields, in this order.
macro_rules! fields {
    ($($name:ident { $($field:tt),* })*) => {$(
        impl $crate::fields::Field for $name {
            fn write(&self, out: &mut Vec<u8>) {
                $(self.$field.write(out);)*
            }

            fn read(rest: &mut &[u8]) -> Option<$name> {
                Some($name { $($field: $crate::fields::Field::read(rest)?),* })
            }
        }
    )*};
}
pub(crate) use fields;

/// Defines an enum without data, and lists its variants in the order of their numbers.
macro_rules! listed {
    ($(#[$about:meta])* pub enum $name:ident { $($(#[$doc:meta])* $variant:ident,)* }) => {
        $(#[$about])*
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// All variants, in the order of their numbers.
            pub const ALL: [$name; [$($name::$variant),*].len()] = [$($name::$variant),*];
        }
    };
}
pub(crate) use listed;

/// Encodes enums that [`listed`] defines as the numbers of their variants.
macro_rules! numbered {
    ($($name:ident)*) => {$(
        impl $crate::fields::Field for $name {
            fn write(&self, out: &mut Vec<u8>) {
                out.push(*self as u8);
            }

            fn read(rest: &mut &[u8]) -> Option<$name> {
                $name::ALL.get(usize::from(u8::read(rest)?)).copied()
            }
        }
    )*};
}
pub(crate) use numbered;

macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl Field for $number {
            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn read(rest: &mut &[u8]) -> Option<$number> {
                let (bytes, after) = rest.split_first_chunk()?;
                *rest = after;
                Some(<$number>::from_le_bytes(*bytes))
            }
        }
    )*};
}

numbers!(u8 u16 u32 u64 u128);
fields!(DiskId { 0 } GroupId { 0 } Incarnation { 0 } Index { 0 } ProcessId { 0 } Term { 0 });
fields!(Moment { 0 } WallTime { 0 });
fields!(Member { id, disk } Position { term, index } Run { incarnation, process });

impl Field for bool {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn read(rest: &mut &[u8]) -> Option<bool> {
        match u8::read(rest)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl Field for ServerId {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(self.number());
    }

    fn read(rest: &mut &[u8]) -> Option<ServerId> {
        ServerId::new(u8::read(rest)?)
    }
}

impl<T: Field> Field for Option<T> {
    fn write(&self, out: &mut Vec<u8>) {
        self.is_some().write(out);
        self.iter().for_each(|value| value.write(out));
    }

    fn read(rest: &mut &[u8]) -> Option<Option<T>> {
        if bool::read(rest)? { T::read(rest).map(Some) } else { Some(None) }
    }
}

impl<T: Field> Field for Vec<T> {
    fn write(&self, out: &mut Vec<u8>) {
        (self.len() as u32).write(out);
        self.iter().for_each(|value| value.write(out));
    }

    fn read(rest: &mut &[u8]) -> Option<Vec<T>> {
        let count = u32::read(rest)?;
        // Not allocated at once: a list that is not all there may claim any length.
        (0..count).map(|_| T::read(rest)).collect()
    }
}

impl<T: Field, U: Field> Field for (T, U) {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
        self.1.write(out);
    }

    fn read(rest: &mut &[u8]) -> Option<(T, U)> {
        Some((T::read(rest)?, U::read(rest)?))
    }
}

impl<T: Field> Field for [T; 3] {
    fn write(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|value| value.write(out));
    }

    fn read(rest: &mut &[u8]) -> Option<[T; 3]> {
        Some([T::read(rest)?, T::read(rest)?, T::read(rest)?])
    }
}

/// Writes a list with its length, which is below 256.
pub(crate) fn write_list<T: Field>(list: &[T], out: &mut Vec<u8>) {
    out.push(list.len() as u8);
    list.iter().for_each(|value| value.write(out));
}

/// Reads a list of at most `most` values.
pub(crate) fn read_list<T: Field>(rest: &mut &[u8], most: usize) -> Option<Vec<T>> {
    let count = usize::from(u8::read(rest)?);
    if count > most {
        return None;
    }
    (0..count).map(|_| T::read(rest)).collect()
}
