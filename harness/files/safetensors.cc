#include "harness/files/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "harness/core/error.h"
#include "harness/files/float_bits.h"

namespace kvsweep {
namespace {

using nlohmann::json;

constexpr int64_t kPrefixBytes = 8;
constexpr int64_t kMaxHeaderBytes = 100'000'000;  // the limit of the safetensors library

// Bits of a value; 0 for a dtype that is not known, whose sizes cannot be checked.
int64_t bits_of(const std::string& dtype) {
  static const std::map<std::string, int64_t> kBits = {
      {"BOOL", 8}, {"U8", 8},   {"I8", 8},   {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8},
      {"I16", 16}, {"U16", 16}, {"F16", 16}, {"BF16", 16},   {"I32", 32},    {"U32", 32},
      {"F32", 32}, {"C64", 64}, {"F64", 64}, {"I64", 64},    {"U64", 64}};
  const auto at = kBits.find(dtype);
  return at == kBits.end() ? 0 : at->second;
}

// A JSON array of non-negative integers.
std::optional<std::vector<int64_t>> sizes_from(const json& entry, const char* key) {
  const auto at = entry.find(key);
  if (at == entry.end() || !at->is_array()) return {};
  std::vector<int64_t> sizes;
  for (const json& item : *at) {
    if (!item.is_number_unsigned() || !std::in_range<int64_t>(item.get<uint64_t>())) return {};
    sizes.push_back(item.get<int64_t>());
  }
  return sizes;
}

// What is wrong with a tensor's entry, or "". Offsets of `tensor` count from the start of the data.
std::string parse_tensor(const json& entry, SafetensorsTensor& tensor) {
  if (!entry.is_object()) return "its entry is not an object";
  const auto dtype = entry.find("dtype");
  if (dtype == entry.end() || !dtype->is_string()) return "its entry has no text 'dtype'";
  tensor.dtype = dtype->get<std::string>();
  const auto shape = sizes_from(entry, "shape");
  if (!shape) return "its 'shape' is not an array of integers from 0";
  tensor.shape = *shape;
  const auto offsets = sizes_from(entry, "data_offsets");
  if (!offsets || offsets->size() != 2 || (*offsets)[0] > (*offsets)[1])
    return "its 'data_offsets' are not [begin, end] with 0 <= begin <= end";
  tensor.offset = (*offsets)[0];
  tensor.bytes = (*offsets)[1] - (*offsets)[0];
  int64_t bits = bits_of(tensor.dtype);
  if (bits == 0) return "";
  for (int64_t size : tensor.shape)
    if (__builtin_mul_overflow(bits, size, &bits)) return "its shape overflows";
  if (bits / 8 == tensor.bytes) return "";
  return fmt::format("shape [{}] of {} needs {} bytes, data_offsets give {}", fmt::join(tensor.shape, ", "),
                     tensor.dtype, bits / 8, tensor.bytes);
}

}  // namespace

void SafetensorsFile::fail(const std::string& message) const {
  throw DataError(fmt::format("{}: {}", path().string(), message));
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : file_(path) {
  if (file_.bytes() < kPrefixBytes) fail(fmt::format("is no safetensors file: it has {} bytes", file_.bytes()));
  uint64_t length;
  std::memcpy(&length, file_.span(0, kPrefixBytes).data(), sizeof length);
  if (length > kMaxHeaderBytes || static_cast<int64_t>(length) > file_.bytes() - kPrefixBytes)
    fail(
        fmt::format("is truncated or no safetensors file: a header of {} bytes (at most {}) is announced, the file has"
                    " {}",
                    length, kMaxHeaderBytes, file_.bytes()));
  const auto text = file_.span(kPrefixBytes, static_cast<int64_t>(length));
  const json header = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!header.is_object()) fail("the header is not a JSON object");
  const int64_t data_begin = kPrefixBytes + static_cast<int64_t>(length);
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      if (!entry.is_object()) fail("its __metadata__ is not an object");
      for (const auto& [key, value] : entry.items()) {
        if (!value.is_string()) fail(fmt::format("__metadata__ '{}' is not a text", key));
        metadata_.emplace(key, value.get<std::string>());
      }
      continue;
    }
    SafetensorsTensor tensor;
    const std::string wrong = parse_tensor(entry, tensor);
    if (!wrong.empty()) fail(fmt::format("tensor '{}': {}", name, wrong));
    if (tensor.offset + tensor.bytes > file_.bytes() - data_begin)
      fail(fmt::format("tensor '{}' ends at byte {} of the data, the file has {}: truncated, or wrong data_offsets",
                       name, tensor.offset + tensor.bytes, file_.bytes() - data_begin));
    tensor.offset += data_begin;
    tensors_.emplace(name, std::move(tensor));
  }
  check_places(data_begin);
}

void SafetensorsFile::check_places(int64_t data_begin) const {
  using Item = std::pair<const std::string, SafetensorsTensor>;
  std::vector<const Item*> order;
  for (const Item& item : tensors_) order.push_back(&item);
  std::sort(order.begin(), order.end(), [](const Item* a, const Item* b) {
    return std::pair(a->second.offset, a->second.bytes) < std::pair(b->second.offset, b->second.bytes);
  });
  int64_t end = data_begin;
  std::string before = "the header";
  for (const Item* item : order) {
    const int64_t begin = item->second.offset;
    if (begin < end) fail(fmt::format("tensors '{}' and '{}' overlap at byte {}", before, item->first, begin));
    if (begin > end)
      fail(fmt::format("between {} and tensor '{}' lie {} bytes that belong to no tensor", before, item->first,
                       begin - end));
    end = begin + item->second.bytes;
    before = item->first;
  }
  if (end != file_.bytes())
    fail(fmt::format("{} bytes after the last tensor belong to no tensor", file_.bytes() - end));
}

const SafetensorsTensor& SafetensorsFile::tensor(const std::string& name) const {
  const auto at = tensors_.find(name);
  if (at == tensors_.end()) fail(fmt::format("has no tensor '{}'", name));
  return at->second;
}

std::span<const uint8_t> SafetensorsFile::bytes(const std::string& name) const {
  const SafetensorsTensor& from = tensor(name);
  return file_.span(from.offset, from.bytes);
}

void SafetensorsFile::read(const std::string& name, float* out) const {
  const SafetensorsTensor& from = tensor(name);
  const uint8_t* bytes = file_.span(from.offset, from.bytes).data();
  if (from.dtype == "F32") {
    copy_f32(bytes, from.bytes / 4, out);
  } else if (from.dtype == "F16") {
    widen_f16(bytes, from.bytes / 2, out);
  } else if (from.dtype == "BF16") {
    widen_bf16(bytes, from.bytes / 2, out);
  } else {
    fail(fmt::format("tensor '{}' has dtype {}; weights can be read from F32, F16 and BF16", name, from.dtype));
  }
  file_.drop(from.offset, from.bytes);
}

void write_safetensors(const std::filesystem::path& path, const std::vector<SafetensorsSource>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  json header = json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  int64_t end = 0;
  for (const SafetensorsSource& tensor : tensors) {
    const auto bytes = static_cast<int64_t>(tensor.bytes.size());
    header[tensor.name] = {{"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {end, end + bytes}}};
    end += bytes;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // tensors start at a multiple of 8 bytes, as the library writes them
  const uint64_t length = text.size();
  const std::filesystem::path unfinished = path.string() + ".new";
  std::ofstream out(unfinished, std::ios::binary | std::ios::trunc);
  const auto put = [&out](const void* data, size_t bytes) {
    out.write(static_cast<const char*>(data), static_cast<std::streamsize>(bytes));
  };
  put(&length, sizeof length);
  put(text.data(), text.size());
  for (const SafetensorsSource& tensor : tensors) put(tensor.bytes.data(), tensor.bytes.size());
  out.close();
  std::error_code error;
  if (out) std::filesystem::rename(unfinished, path, error);
  if (out && !error) return;
  const std::string why = error ? error.message() : std::strerror(errno);
  std::filesystem::remove(unfinished, error);
  throw DataError(fmt::format("{}: cannot be written: {}", path.string(), why));
}

}  // namespace kvsweep
