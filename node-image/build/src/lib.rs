//! The image build.
