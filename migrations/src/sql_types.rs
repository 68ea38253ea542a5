//! How enums and JSON live in TEXT columns.

use std::error::Error;

use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Decode, Sqlite, Type, error::BoxDynError, sqlite::SqliteValueRef};

/// A value that is not among those that a column may hold.
#[derive(Debug, thiserror::Error)]
#[error("{value:?} is not a {noun}; allowed: {allowed}")]
pub struct UnknownText {
    /// What was to be read.
    pub noun: &'static str,
    /// What it was.
    pub value: String,
    /// The allowed values, comma-separated.
    pub allowed: String,
}

/// Declares an enum that is text in the database, in JSON and on a command line.
macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident ($noun:literal) { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[derive(serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// Every value, in order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The value as text.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::sql_types::UnknownText;

            fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err($crate::sql_types::UnknownText {
                        noun: $noun,
                        value: text.to_owned(),
                        allowed: [$($text),+].join(", "),
                    }),
                }
            }
        }

        impl sqlx::Type<sqlx::Sqlite> for $name {
            fn type_info() -> <sqlx::Sqlite as sqlx::Database>::TypeInfo {
                <str as sqlx::Type<sqlx::Sqlite>>::type_info()
            }

            fn compatible(ty: &<sqlx::Sqlite as sqlx::Database>::TypeInfo) -> bool {
                <str as sqlx::Type<sqlx::Sqlite>>::compatible(ty)
            }
        }

        impl<'r> sqlx::Decode<'r, sqlx::Sqlite> for $name {
            fn decode(
                value: sqlx::sqlite::SqliteValueRef<'r>,
            ) -> std::result::Result<Self, sqlx::error::BoxDynError> {
                Ok(<&str as sqlx::Decode<sqlx::Sqlite>>::decode(value)?.parse()?)
            }
        }
    };
}
pub(crate) use text_enum;

/// A value kept as JSON text.
pub(crate) struct JsonText<T>(pub T);

impl<T> Type<Sqlite> for JsonText<T> {
    fn type_info() -> <Sqlite as sqlx::Database>::TypeInfo {
        <str as Type<Sqlite>>::type_info()
    }

    fn compatible(ty: &<Sqlite as sqlx::Database>::TypeInfo) -> bool {
        <str as Type<Sqlite>>::compatible(ty)
    }
}

impl<'r, T: DeserializeOwned> Decode<'r, Sqlite> for JsonText<T> {
    fn decode(value: SqliteValueRef<'r>) -> Result<Self, BoxDynError> {
        let text = <&str as Decode<Sqlite>>::decode(value)?;
        Ok(Self(
            serde_json::from_str(text).map_err(|e| Box::new(e) as Box<dyn Error + Send + Sync>)?,
        ))
    }
}

/// JSON text of a value of ours.
pub(crate) fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("our own types have string keys and no failing serializer")
}
