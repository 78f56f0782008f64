//! Directories of the Hugging Face Hub: `config.json` and safetensors files. The configuration becomes the metadata that a
//! converter to GGUF would have written; the tensors get GGUF's names and stay where they lie in the files.

mod config;
mod directory;
mod image;
mod keys;
mod names;
mod quantization;
mod rope;
mod safetensors;
mod settings;
mod tensors;

pub use directory::{Directory, Place, check_directory, directory_of};

use super::gguf::{self, TensorInfo};
use super::map::Map;
use super::{Checkpoint, Listing, Part};
use crate::error::{Error, Result};
use config::Config;
use directory::{CONFIG, MODULES, POOLING};
use image::{Image, Setting};
use serde_json::Value;
use tensors::Shard;

/// Opens a directory.
pub(super) fn open(place: &Place) -> Result<Checkpoint> {
    let mut directory = Directory::open(&place.folder)?;
    let mut config = configuration(&directory)?;
    let shards = open_shards(&mut directory, place.file.as_deref())?;
    let assigned = tensors::assign(&shards, &mut config).map_err(|error| error.of_file(&place.folder))?;
    directory.floats = assigned.1;
    let mut whole = made(place, std::mem::take(&mut config.image), Some(directory))?;
    whole.parts.extend(shards.into_iter().map(|shard| Part::Mapped(shard.map)));
    whole.tensors.extend(assigned.0);
    whole.warnings = config.warnings;
    whole.sorted()
}

/// Opens a directory for its metadata alone.
pub(super) fn open_metadata(place: &Place) -> Result<Checkpoint> {
    let directory = Directory::open(&place.folder)?;
    let config = configuration(&directory)?;
    let mut whole = made(place, config.image, Some(directory))?;
    whole.tensors.clear();
    Ok(whole)
}

/// What a directory lists, also if this engine cannot run it.
pub(super) fn list(place: &Place) -> Result<Listing> {
    let mut directory = Directory::open(&place.folder)?;
    let image = match configuration(&directory) {
        Ok(config) => config.image,
        Err(Error::Unsupported(_) | Error::Model(_)) => {
            let mut image = Image::default();
            let json = directory.json(CONFIG)?.unwrap_or_default();
            let kind = json["model_type"].as_str().unwrap_or_default();
            image.set("general.architecture", Setting::Str(kind.into()));
            image
        }
        Err(error) => return Err(error),
    };
    let shards = match open_shards(&mut directory, place.file.as_deref()) {
        Ok(shards) => shards,
        Err(Error::Unsupported(_)) => Vec::new(),
        Err(error) => return Err(error),
    };
    let infos = shards.iter().flat_map(|shard| &shard.entries).map(|entry| TensorInfo {
        name: entry.name.clone(),
        shape: entry.shape.iter().rev().copied().collect(),
        kind: entry.dtype.to_string(),
        bytes: entry.range.len(),
    });
    let tensors = infos.collect();
    let mut checkpoint = made(place, image, Some(directory))?;
    checkpoint.parts.extend(shards.into_iter().map(|shard| Part::Mapped(shard.map)));
    checkpoint.tensors.clear();
    Ok(Listing { checkpoint, tensors })
}

/// The configuration of a directory.
fn configuration(directory: &Directory) -> Result<Config> {
    let path = directory.folder.join(CONFIG);
    let broken = |reason: &str| Error::File { path: path.clone(), reason: reason.into() };
    let json = directory.json(CONFIG)?.ok_or_else(|| Error::File {
        path: directory.folder.clone(),
        reason: format!(
            "is a directory without {CONFIG}, so it is not a model; give the path of a .gguf file, or of a directory with it"
        ),
    })?;
    let map = json.as_object().ok_or_else(|| broken("is not a JSON object, expected the configuration of a model"))?;
    check_modules(directory)?;
    let pooling: Option<Value> = directory.json(POOLING)?;
    config::read(&path, map, &directory.name(), pooling.as_ref())
}

/// Refuses an embedding model with a step that this engine does not compute, as sentence-transformers lists them.
fn check_modules(directory: &Directory) -> Result<()> {
    let Some(modules) = directory.json(MODULES)? else { return Ok(()) };
    for module in modules.as_array().into_iter().flatten() {
        let kind = module["type"].as_str().unwrap_or_default();
        let known = ["Transformer", "Pooling", "Normalize"];
        if !known.contains(&kind.rsplit('.').next().unwrap_or_default()) {
            return Err(Error::Unsupported(format!(
                "{}: {MODULES} has the step '{kind}'; this engine knows {}",
                directory.folder.display(),
                known.join(", ")
            )));
        }
    }
    Ok(())
}

/// A model of metadata and computed tensors alone.
fn made(place: &Place, image: Image, directory: Option<Directory>) -> Result<Checkpoint> {
    let bytes = image.into_bytes();
    let parsed = gguf::parse(&bytes, &place.folder)?;
    // A file that was named and is the whole model is the path; a directory may hold several.
    let path = match (&place.file, &directory) {
        (Some(file), Some(directory)) if directory.shards == [file.clone()] => place.folder.join(file),
        _ => place.folder.clone(),
    };
    let mut whole = Checkpoint::new(&path, vec![Part::Made(bytes)], parsed.header);
    whole.tensors = parsed.tensors;
    whole.directory = directory;
    Ok(whole)
}

/// Maps the files of weights and reads their headers.
fn open_shards(directory: &mut Directory, named: Option<&str>) -> Result<Vec<Shard>> {
    let index = directory.find_weights(named)?;
    let open = |name: &String| {
        let path = directory.shard_path(name)?;
        let map = Map::open(&path)?;
        let entries = safetensors::parse(&map.bytes).map_err(|reason| Error::File { path, reason })?;
        Ok(Shard { map, entries })
    };
    let shards = directory.shards.iter().map(open).collect::<Result<Vec<Shard>>>()?;
    if let Some(index) = &index {
        tensors::check_index(&directory.folder, index, &directory.shards, &shards)?;
    }
    Ok(shards)
}
