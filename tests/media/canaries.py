"""Files that say everything they can about a patient, and the words by which a leak is found."""

import gzip
import io
import re

import nibabel
import numpy as np
from PIL import Image
from PIL import PngImagePlugin
import pydicom
from pydicom import datadict
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from hulu_jax.media import samples
from tests.media import tiny

WORD = "ZQCANARY"
DATE, TIME, NUMBER, AGE, UID = "19531127", "134757", "87654321", "087Y", "2.25.8765432109"
# As libraries and formatters might write them.
LEAKS = (
  WORD,
  DATE,
  "1953-11-27",
  "1953, 11, 27",
  "27.11.1953",
  "1953.11.27",
  "1953:11:27",
  TIME,
  "13:47:57",
  NUMBER,
  "87,654,321",
  "8.76543e+07",
  AGE,
  UID,
)
_BY_VR = {
  "AE": f"{WORD}AE",
  "AS": AGE,
  "CS": f"{WORD}CS",
  "DA": DATE,
  "DS": NUMBER,
  "DT": f"{DATE}{TIME}.123456",
  "IS": NUMBER,
  "LO": f"{WORD} long",
  "LT": f"{WORD} long text\r\nmore",
  "PN": f"{WORD}^GIVEN^^DR={WORD}",
  "SH": f"{WORD} short",
  "ST": f"{WORD} text",
  "TM": f"{TIME}.123",
  "UC": f"{WORD} unlimited",
  "UI": f"{UID}1",
  "UR": f"http://{WORD}.example",
  "UT": f"{WORD} unlimited text",
}
# What says how pixels are to be read; each of these has its own case in `dicom_of_one_word`.
_STRUCTURAL = (
  "BitsAllocated BitsStored Columns CineRate FrameTime FrameTimeVector HighBit ImageOrientation"
  "Patient ImagePositionPatient ImageType ImagerPixelSpacing Modality NumberOfFrames "
  "PhotometricInterpretation PixelSpacing PlanarConfiguration PresentationIntentType "
  "RecommendedDisplayFrameRate RescaleIntercept RescaleSlope RescaleType Rows SOPClassUID "
  "SamplesPerPixel SpacingBetweenSlices SpecificCharacterSet VOILUTFunction WindowCenter "
  "WindowWidth PresentationLUTShape DecayCorrection Units TimezoneOffsetFromUTC"
).split()


def every_text_element() -> dict[int, tuple[str, str]]:
  """Tag to (VR, value) of all text in the data dictionary that no reader needs to be true."""
  found = {}
  for tag, (vr, _, _, _, keyword) in datadict.DicomDictionary.items():
    group = tag >> 16
    # Not the file's own meta elements, directories, commands, palettes nor pixels.
    usable = group not in (0x0000, 0x0002, 0x0004) and group < 0x7FE0 and tag & 0xFFFF != 0
    numeric = vr in ("DS", "IS") and group in (0x0018, 0x0028)
    if vr in _BY_VR and usable and not numeric and keyword and keyword not in _STRUCTURAL:
      found[tag] = (vr, _BY_VR[vr])
  return found


def fill(dataset: Dataset) -> Dataset:
  """All of `every_text_element`, private elements, and the same again in nested sequences."""
  for tag, (vr, value) in every_text_element().items():
    if tag not in dataset or dataset[tag].VR in ("PN", "DA"):
      dataset.add_new(tag, vr, value)
  for group in (0x0009, 0x0019, 0x0029, 0x0051):
    dataset.add_new((group, 0x0010), "LO", f"{WORD} PRIVATE")
    for element, vr in enumerate(("LO", "PN", "UT", "DA", "ST", "IS", "UN", "OB"), 0x1001):
      binary = vr in ("UN", "OB")
      dataset.add_new((group, element), vr, WORD.encode() if binary else _BY_VR[vr])
  inner = Dataset()
  for tag, (vr, value) in list(every_text_element().items())[:300]:
    inner.add_new(tag, vr, value)
  for keyword in ("OtherPatientIDsSequence", "RequestAttributesSequence", "ContentSequence"):
    outer = Dataset()
    outer.ReferencedStudySequence = Sequence([inner])
    outer.add_new((0x0009, 0x0010), "LO", WORD)
    setattr(dataset, keyword, Sequence([outer, inner]))
  return dataset


def filled(dataset: pydicom.FileDataset) -> bytes:
  """A dataset with canaries in every text element and in its meta information."""
  fill(dataset)
  dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{UID}2"
  dataset.SeriesInstanceUID, dataset.StudyInstanceUID = f"{UID}3", f"{UID}4"
  dataset.file_meta.SourceApplicationEntityTitle = f"{WORD}AE"
  dataset.file_meta.PrivateInformationCreatorUID = f"{UID}5"
  dataset.file_meta.PrivateInformation = WORD.encode()
  dataset.preamble = (WORD * 16).encode()
  return tiny.saved(dataset)


def dicom_of_one_word(keyword: str, multi: bool) -> bytes:
  """A file of which one structural element is a word, whatever its VR: parsers quote such."""
  dataset = tiny.cine() if multi else tiny.ct()
  vr = datadict.dictionary_VR(keyword)
  dataset.add_new(keyword, "UI" if vr == "UI" else "LO", UID if vr == "UI" else WORD)
  data = tiny.saved(dataset)
  tag = datadict.tag_for_keyword(keyword)
  head = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")
  return data.replace(head + b"LO", head + (vr if len(vr) == 2 else "US").encode())


def numbers_as_words() -> dict[str, bytes]:
  """Files by structural keyword."""
  single = [k for k in _STRUCTURAL if k not in ("SpecificCharacterSet",)]
  made = {f"one_{k}": dicom_of_one_word(k, multi=False) for k in single}
  multi = ("FrameTime", "FrameTimeVector", "NumberOfFrames", "CineRate", "Rows", "SOPClassUID")
  return made | {f"many_{k}": dicom_of_one_word(k, multi=True) for k in multi}


def nifti() -> bytes:
  """Canaries in every text field of the header and in extensions."""
  values = np.arange(480, dtype=np.int16).reshape(12, 10, 4)
  image = nibabel.Nifti1Image(values, np.diag([1.0, 1.0, 3.0, 1.0]))
  for field in ("descrip", "aux_file", "db_name", "intent_name", "data_type"):
    image.header[field] = WORD.encode()
  for code in (0, 4, 6, 32):
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension(code, WORD.encode() * 4))
  header = Dataset()
  header.PatientName = f"{WORD}^DICOM"
  image.header.extensions.append(nibabel.nifti1.Nifti1DicomExtension(2, header))
  return image.to_bytes()


def picture(form: str) -> bytes:
  """Canaries in EXIF, comments, text chunks, XMP or tags, as the format has them."""
  exif = Image.Exif()
  for tag in (270, 271, 272, 305, 306, 315, 33432):  # description, maker, ..., copyright
    exif[tag] = f"{WORD} {tag}"
  exif.get_ifd(0x8769).update({36867: "1953:11:27 13:47:57", 37510: WORD.encode()})
  image = Image.fromarray(np.stack([tiny.grey()] * 3, axis=-1))
  out = io.BytesIO()
  if form == "PNG":
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", WORD)
    info.add_text("Comment", WORD * 9, zip=True)
    info.add_itxt(WORD, WORD, "en", WORD, zip=True)
    image.save(out, form, pnginfo=info, exif=exif)
  elif form == "JPEG":
    image.save(out, form, comment=WORD.encode(), exif=exif)
  elif form == "WEBP":
    image.save(out, form, exif=exif, xmp=WORD.encode())
  else:
    tags = {tag: f"{WORD} {tag}" for tag in (269, 270, 271, 272, 285, 305, 306, 315, 316, 33432)}
    image.save(out, form, tiffinfo=tags | {65000: WORD, 34377: WORD.encode()})
  return out.getvalue()


def structured_npy() -> bytes:
  """An array whose columns are named."""
  out = io.BytesIO()
  np.save(out, np.zeros((2, 2, 2), [(WORD, "<i2")]))
  return out.getvalue()


def clip(form: str, codec: str) -> bytes:
  """Canaries in the container's metadata."""
  keys = ("title", "artist", "comment", "copyright", "description", "encoder", WORD)
  return tiny.clip(form, codec, frames=40, metadata={key: WORD for key in keys})


def pet() -> pydicom.FileDataset:
  """A PET slice whose dose, weight and clock give an SUV."""
  injected = Dataset()
  injected.RadiopharmaceuticalStartTime, injected.RadionuclideTotalDose = "124757", 3.7e8
  injected.RadionuclideHalfLife = 6586.2
  return tiny.ct(
    Modality="PT",
    SOPClassUID="1.2.840.10008.5.1.4.1.1.128",
    Units="BQML",
    CorrectedImage=["ATTN", "DECY"],
    DecayCorrection="START",
    RescaleIntercept=0,
    RescaleSlope=100,
    SeriesTime=TIME,
    AcquisitionTime=TIME,
    PatientWeight="70",
    RadiopharmaceuticalInformationSequence=[injected],
  )


def stacks() -> pydicom.FileDataset:
  """An enhanced file whose frames lie in stacks that somebody named."""
  dataset = tiny.enhanced()
  dataset.PixelData = np.arange(3 * 16 * 24, dtype=np.uint16).tobytes()
  for k, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
    content = Dataset()
    content.StackID, content.FrameComments = f"{WORD}{k % 2}", WORD
    content.FrameAcquisitionDateTime = f"{DATE}{TIME}"
    group.FrameContentSequence = [content]
    group.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 2.5 * (k // 2)]
  return dataset


def pairs() -> dict[str, bytes]:
  """Philips PAR/REC and AFNI files of nibabel's own, their texts replaced."""
  par, head = samples.locate("phantom"), samples.locate("brain_talairach")
  names = "(Patient name|Examination name|Protocol name)"
  text = re.sub(rf"{names}( *: *).*", rf"\1\2{WORD}", par.read_text())
  text = re.sub(r"(date/time *: *).*", r"\g<1>1953.11.27 / 13:47:57", text)
  notes = re.sub("'AFN_vLKn9e5VumKelWXNeq4SWA~", f"'{WORD:x<26}~", head.read_text())
  return {
    "p.PAR": re.sub("Dataset name: .*", f"Dataset name: {WORD}", text).encode(),
    "p.REC": par.with_suffix(".REC").read_bytes(),
    "t+tlrc.HEAD": notes.replace("Tue Jan 23 20:05:10 2018", f"{WORD:y<24}").encode(),
    "t+tlrc.BRIK": head.with_suffix(".BRIK").read_bytes(),
  }


def every_file() -> dict[str, bytes]:
  """Name to content; the names say nothing, their callers put words into them."""
  return {
    "ct.dcm": filled(tiny.ct()),
    "cine.dcm": filled(tiny.cine()),
    "enhanced.dcm": filled(tiny.enhanced()),
    "pet.dcm": filled(pet()),
    "stacks.dcm": filled(stacks()),
    "named.dcm": filled(tiny.ct(Modality=WORD)),
    "a.nii": nifti(),
    "a.nii.gz": gzip.compress(nifti()),
    "a.png": picture("PNG"),
    "a.jpg": picture("JPEG"),
    "a.webp": picture("WEBP"),
    "a.tiff": picture("TIFF"),
    "a.npy": tiny.npy(),
    "b.npy": structured_npy(),
    "a.mp4": clip("mp4", "mpeg4"),
    "a.avi": clip("avi", "mpeg4"),
    "a.webm": clip("webm", "libvpx"),
    "a.txt": f"{WORD} is no picture".encode(),
  }
