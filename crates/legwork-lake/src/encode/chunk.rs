//! Column chunks: a page of values, before it one of different strings where there is a dictionary, and what the footer says of them.

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType};
use bytes::Bytes;
use parquet::basic::{Compression, Encoding, PageType};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, PageEncodingStats};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::statistics::{Statistics, ValueStatistics};
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::{ColumnDescPtr, ColumnDescriptor};

use super::values::{Dictionary, put_all_defined, put_deltas, put_front_coded};

/// Longer ones the library cuts in statistics.
const STATISTICS_TEXT_MAX: usize = 64;
/// Values for each that differs, at least, for which a dictionary pays.
const REPEATS_MIN: usize = 2;

/// Text of a page. The library makes several pages of more.
const PAGE_BYTES_MAX: usize = 64 << 20;

/// About what the headers of two pages take.
const HEADERS_BYTES: usize = 128;

/// Encoded values of a column, none null.
#[derive(Debug)]
struct Values {
    page: Vec<u8>,
    encoding: Encoding,
    dictionary: Option<(Vec<u8>, u32)>,
    statistics: Option<Statistics>,
}

/// Encodes a column's rows of a row group as `properties` has it, but uncompressed. *Returns* none for what only the library encodes: other
/// encodings, other types, nulls, strings that hardly repeat. *Shape:* parts of the column, in order.
pub(super) fn encode(
    column: &ColumnDescPtr,
    properties: &WriterProperties,
    parts: &[ArrayRef],
) -> Result<Option<(Bytes, ColumnCloseResult)>, ParquetError> {
    let n_rows = parts.iter().map(|part| part.len()).sum::<usize>();
    let is_flat = column.max_rep_level() == 0 && column.max_def_level() <= 1;
    if n_rows == 0 || !is_flat || parts.iter().any(|part| part.null_count() > 0) {
        return Ok(None);
    }
    let mut page = Vec::new();
    if column.max_def_level() == 1 {
        put_all_defined(n_rows, &mut page);
    }
    let encoded = match parts[0].data_type() {
        DataType::Int64 | DataType::Timestamp(TimeUnit::Microsecond, _) => counts(column, properties, parts, page),
        DataType::Utf8 => texts(column, properties, parts, page),
        _ => None,
    };
    encoded.map(|values| close(column, n_rows, values)).transpose()
}

fn with_statistics(column: &ColumnDescriptor, properties: &WriterProperties) -> bool {
    properties.statistics_enabled(column.path()) != EnabledStatistics::None
}

fn counts(
    column: &ColumnDescriptor,
    properties: &WriterProperties,
    parts: &[ArrayRef],
    mut page: Vec<u8>,
) -> Option<Values> {
    let encoding = properties.encoding(column.path()).filter(|of| *of == Encoding::DELTA_BINARY_PACKED)?;
    if properties.dictionary_enabled(column.path()) {
        return None;
    }
    let values = |part: &ArrayRef| match part.as_primitive_opt::<Int64Type>() {
        Some(counts) => counts.values().clone(),
        None => part.as_primitive::<TimestampMicrosecondType>().values().clone(),
    };
    let parts: Vec<_> = parts.iter().map(values).collect();
    let parts: Vec<&[i64]> = parts.iter().map(|part| &part[..]).collect();
    put_deltas(&parts, &mut page);
    let statistics = with_statistics(column, properties).then(|| {
        let all = || parts.iter().copied().flatten().copied();
        let range = ValueStatistics::new(all().min(), all().max(), None, Some(0), false);
        Statistics::Int64(range.with_backwards_compatible_min_max(true))
    });
    Some(Values { page, encoding, dictionary: None, statistics })
}

fn texts(
    column: &ColumnDescriptor,
    properties: &WriterProperties,
    parts: &[ArrayRef],
    mut page: Vec<u8>,
) -> Option<Values> {
    let parts: Vec<&StringArray> = parts.iter().map(|part| part.as_string()).collect();
    let is_told = with_statistics(column, properties);
    if properties.dictionary_enabled(column.path()) {
        let dictionary = Dictionary::of(&parts)?;
        let n_rows = parts.iter().map(|part| part.len()).sum::<usize>();
        if n_rows > 1 && n_rows < REPEATS_MIN * dictionary.n_entries() as usize {
            return None;
        }
        let statistics = if is_told { Some(text_statistics(&dictionary)?) } else { None };
        dictionary.put_indices(&mut page);
        let n_entries = dictionary.n_entries();
        let dictionary = Some((dictionary.page, n_entries));
        return Some(Values { page, encoding: Encoding::RLE_DICTIONARY, dictionary, statistics });
    }
    let encoding = properties.encoding(column.path()).filter(|of| *of == Encoding::DELTA_BYTE_ARRAY && !is_told)?;
    let n_bytes = |part: &StringArray| (part.value_offsets()[part.len()] - part.value_offsets()[0]) as usize;
    if parts.iter().map(|part| n_bytes(part)).sum::<usize>() > PAGE_BYTES_MAX {
        return None;
    }
    put_front_coded(&parts, &mut page);
    Some(Values { page, encoding, dictionary: None, statistics: None })
}

fn text_statistics(dictionary: &Dictionary) -> Option<Statistics> {
    let (least, greatest) = (dictionary.entries().min()?, dictionary.entries().max()?);
    let is_short = least.len().max(greatest.len()) <= STATISTICS_TEXT_MAX;
    let [least, greatest] = [least, greatest].map(|text| Some(ByteArray::from(text)));
    is_short.then(|| Statistics::ByteArray(ValueStatistics::new(least, greatest, None, Some(0), false)))
}

fn close(column: &ColumnDescPtr, n_rows: usize, values: Values) -> Result<(Bytes, ColumnCloseResult), ParquetError> {
    let too_many = |_| ParquetError::General("a page has too many values".to_owned());
    let n_values = u32::try_from(n_rows).map_err(too_many)?;
    let n_bytes = values.page.len() + values.dictionary.as_ref().map_or(0, |(page, _)| page.len());
    let mut sink = TrackedWrite::new(Vec::with_capacity(n_bytes + HEADERS_BYTES));
    let mut encodings = vec![Encoding::RLE, values.encoding];
    let mut pages = Vec::new();
    let dictionary_at = values.dictionary.is_some().then_some(0);
    if let Some((page, num_values)) = values.dictionary {
        let n_bytes = page.len();
        let page = Page::DictionaryPage { buf: page.into(), num_values, encoding: Encoding::PLAIN, is_sorted: false };
        SerializedPageWriter::new(&mut sink).write_page(CompressedPage::new(page, n_bytes))?;
        encodings.push(Encoding::PLAIN);
        pages.push((PageType::DICTIONARY_PAGE, Encoding::PLAIN));
    }
    let data_at = sink.bytes_written();
    let n_bytes = values.page.len();
    let page = Page::DataPage {
        buf: values.page.into(),
        num_values: n_values,
        encoding: values.encoding,
        def_level_encoding: Encoding::RLE,
        rep_level_encoding: Encoding::RLE,
        statistics: None,
    };
    SerializedPageWriter::new(&mut sink).write_page(CompressedPage::new(page, n_bytes))?;
    pages.push((PageType::DATA_PAGE, values.encoding));
    let bytes = sink.into_inner()?;
    let n_bytes = bytes.len() as i64;
    let pages = pages.into_iter().map(|(page_type, encoding)| PageEncodingStats { page_type, encoding, count: 1 });
    let mut metadata = ColumnChunkMetaData::builder(column.clone())
        .set_compression(Compression::UNCOMPRESSED)
        .set_encodings(encodings)
        .set_page_encoding_stats(pages.collect())
        .set_num_values(i64::from(n_values))
        .set_total_compressed_size(n_bytes)
        .set_total_uncompressed_size(n_bytes)
        .set_dictionary_page_offset(dictionary_at)
        .set_data_page_offset(data_at as i64);
    if let Some(statistics) = values.statistics {
        metadata = metadata.set_statistics(statistics);
    }
    let close = ColumnCloseResult {
        bytes_written: bytes.len() as u64,
        rows_written: u64::from(n_values),
        metadata: metadata.build()?,
        bloom_filter: None,
        column_index: None,
        offset_index: None,
    };
    Ok((bytes.into(), close))
}
