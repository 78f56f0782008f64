//! Packed models: a model file in the layout of the kernels, which an engine maps instead of packing it again.

use super::{Engine, Options, Watch};
use crate::checkpoint::{ALIGNMENT, Checkpoint, ContentHash, Packed};
use crate::error::{Error, Result};
use crate::kernel::{Team, packing};
use crate::machine::file::{Readers, write_atomically};
use crate::machine::pool::Workers;
use crate::model::StoredTensor;
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

named! {
    /// How the trits of a packed model lie.
    #[derive(Default)]
    pub enum Packing {
        /// As suits the kernels of this processor.
        #[default]
        Auto = "auto",
        /// Four trits in a byte; the fastest for most processors.
        TwoBit = "two-bit",
        /// Five trits in a byte where rows are long enough; the fastest with AVX-512 VBMI.
        Base3 = "base3",
    }
}

impl Packing {
    pub(super) fn of_kernels(self) -> Option<packing::Packing> {
        match self {
            Packing::Auto => None,
            Packing::TwoBit => Some(packing::Packing::TwoBit),
            Packing::Base3 => Some(packing::Packing::Base3),
        }
    }
}

/// A packed file.
pub struct PackedFile {
    /// Its size in bytes.
    pub bytes: u64,
    /// BLAKE3 of its content, in hexadecimal.
    pub content: String,
    /// What it tells of the model that was packed.
    pub packed: Packed,
}

/// Opens a model and writes it to `out` in the layout of the kernels. An existing file is an error unless `force` is
/// set. `watch` can cancel it; then nothing is written.
pub fn pack(
    model: &Path,
    out: &Path,
    layout: Packing,
    n_threads: Option<usize>,
    force: bool,
    watch: &mut Watch,
) -> Result<PackedFile> {
    check_target(model, out, force)?;
    let engine = open(model, layout, n_threads, watch)?;
    let image = engine.image(layout, engine.gguf().name(), watch)?;
    let mut made = None;
    let write = |file: &mut File| {
        made = image.write(watch, |bytes| file.write_all(bytes))?;
        let (hash, field) = made.as_ref().ok_or(io::ErrorKind::Interrupted)?;
        file.seek(SeekFrom::Start(*field as u64))?;
        file.write_all(hash.as_bytes())
    };
    match (write_atomically(out, Readers::Everyone, write), made) {
        (Ok(()), Some((content, _))) => Ok(PackedFile { bytes: image.bytes(), content, packed: image.packed }),
        (Err(Error::Io { source, .. }), None) if source.kind() == io::ErrorKind::Interrupted => Err(Error::Cancelled),
        (Err(error), _) => Err(error),
        (Ok(()), None) => Err(Error::Cancelled),
    }
}

/// Checks a packed file: against the hash of its content, and if `model` is given, against that model packed again.
/// Returns what the file tells if all is well.
pub fn check_packed(
    path: &Path,
    model: Option<&Path>,
    n_threads: Option<usize>,
    watch: &mut Watch,
) -> Result<PackedFile> {
    let checkpoint = Checkpoint::open(path)?;
    let packed = checkpoint.packed().ok_or_else(|| {
        Error::Argument(format!("{} is not a packed model, expected a file that was packed", path.display()))
    })?;
    let content = checkpoint.check_content(&mut *watch)?.ok_or(Error::Cancelled)?;
    if let Some(model) = model {
        compare(path, packed, &content, model, n_threads, watch)?;
    }
    Ok(PackedFile { bytes: checkpoint.file_size(), content, packed: packed.clone() })
}

/// Packs a model again, without writing it, and compares it with a packed file of this content.
fn compare(
    path: &Path,
    packed: &Packed,
    content: &str,
    model: &Path,
    n_threads: Option<usize>,
    watch: &mut Watch,
) -> Result<()> {
    let layout = Packing::ALL.into_iter().find(|layout| layout.name() == packed.layout);
    let layout = layout.filter(|layout| *layout != Packing::Auto).ok_or_else(|| Error::File {
        path: path.into(),
        reason: format!("its layout is '{}', which this version does not know; pack the model again", packed.layout),
    })?;
    let engine = open(model, layout, n_threads, watch)?;
    let differs = |what: String| Error::File {
        path: path.into(),
        reason: format!(
            "is not what packing {} gives: {what}; pack that model, or give the one that was packed",
            model.display()
        ),
    };
    let own = engine.fingerprint(watch)?;
    if own != packed.fingerprint {
        return Err(differs(format!("it tells the fingerprint {}, but the model's is {own}", packed.fingerprint)));
    }
    // A file may have been renamed since. Its name is told, like that in a receipt, and not compared.
    let image = engine.image(layout, packed.file.clone(), watch)?;
    let made = image.write(watch, |_| Ok(())).map_err(|source| Error::Io { path: path.into(), source })?;
    let (again, _) = made.ok_or(Error::Cancelled)?;
    if again == content { Ok(()) } else { Err(differs("its weights or its metadata are others".into())) }
}

/// Opens a model to be packed.
fn open(model: &Path, packing: Packing, n_threads: Option<usize>, watch: &mut Watch) -> Result<Engine> {
    let engine = Engine::open(model, Options { packing, n_threads, ..Options::default() }, watch)?;
    match engine.gguf().packed() {
        None => Ok(engine),
        Some(packed) => Err(Error::Argument(format!(
            "{} is packed already, from '{}'; give the original model",
            model.display(),
            packed.file
        ))),
    }
}

/// Refuses to write over a file that is there, and over the model itself.
fn check_target(model: &Path, out: &Path, force: bool) -> Result<()> {
    let Ok(real) = std::fs::canonicalize(out) else { return Ok(()) };
    if std::fs::canonicalize(model).is_ok_and(|model| model == real) {
        let out = out.display();
        return Err(Error::Argument(format!("{out} is the model itself; give another path for the packed file")));
    }
    if force || real.is_dir() {
        return Ok(()); // the writer refuses a folder
    }
    Err(Error::Argument(format!("{} exists; give another path, or force=True to replace it", out.display())))
}

impl Engine {
    /// The packed file of this model. `file` is the name of the model's file.
    fn image(&self, layout: Packing, file: String, watch: &mut Watch) -> Result<Image<'_>> {
        let (gguf, runtime) = (self.gguf(), &self.runtime);
        let layout = match (layout, runtime.kernels.grouped_packing()) {
            (Packing::Auto, packing::Packing::TwoBit) => Packing::TwoBit,
            (Packing::Auto, packing::Packing::Base3) => Packing::Base3,
            (layout, _) => layout,
        };
        let stored = |workers: &Workers| runtime.model.stored_tensors(&Team::new(workers, runtime.kernels));
        let tensors = runtime.pool.run_watched(stored, &mut *watch).unwrap_or(Err(Error::Cancelled));
        let tensors = tensors.map_err(|error| error.of_file(gguf.path()))?;
        let packed = Packed {
            fingerprint: self.fingerprint(watch)?.to_string(),
            file,
            bytes: gguf.file_size(),
            layout: layout.name().into(),
            is_unpermuted: gguf.is_unpermuted(),
            float_projections: gguf.float_projections().map(str::to_string).collect(),
            warnings: [gguf.warnings(), &runtime.model.doubts].concat(),
        };
        let mut header = packed.header(gguf)?;
        for StoredTensor { name, shape, kind, content } in &tensors {
            let id = kind.id_in_packed().expect("`stored_tensors` checks it");
            header.tensor(name, shape, id, content.size());
        }
        Ok(Image { packed, header: header.into_bytes(), tensors })
    }
}

/// A packed file that is to be written.
struct Image<'a> {
    packed: Packed,
    header: Vec<u8>,
    tensors: Vec<StoredTensor<'a>>,
}

impl Image<'_> {
    fn bytes(&self) -> u64 {
        let padded = |end: usize, tensor: &StoredTensor| end.next_multiple_of(ALIGNMENT) + tensor.content.size();
        self.tensors.iter().fold(self.header.len(), padded) as u64
    }

    /// Gives `write` all bytes in order, with zeros in place of the hash of the content, and returns the hash and where it
    /// belongs. `None` if `watch` cancels it. The last tensor ends the file, so that a shorter one is noticed.
    fn write(
        &self,
        watch: &mut Watch,
        mut write: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<Option<(String, usize)>> {
        let mut hash = ContentHash::of_header(&self.header);
        write(&self.header)?;
        let mut end = self.header.len();
        for tensor in &self.tensors {
            let padding = vec![0; end.next_multiple_of(ALIGNMENT) - end];
            end += padding.len() + tensor.content.size();
            hash.update(&padding);
            write(&padding)?;
            let mut cancelled = false;
            let written = tensor.content.for_each_chunk(|bytes| {
                cancelled = watch();
                if cancelled {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                hash.update(bytes);
                write(bytes)
            });
            if cancelled {
                return Ok(None);
            }
            written?;
        }
        let (hash, field) = hash.finish();
        Ok(Some((hash, field.start)))
    }
}
