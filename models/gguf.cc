#include "models/gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "harness/core/error.h"
#include "models/gguf_dequant.h"

namespace kvsweep {
namespace {

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr int64_t kMaxNameBytes = 65535;
constexpr int64_t kMaxDimensions = 4;

// gguf.md, gguf_metadata_value_type
enum ValueType : uint32_t {
  kUint8,
  kInt8,
  kUint16,
  kInt16,
  kUint32,
  kInt32,
  kFloat32,
  kBool,
  kString,
  kArray,
  kUint64,
  kInt64,
  kFloat64
};

}  // namespace

// Reads the header front to back and says where it was when the file ends too early.
class GgufFile::Cursor {
 public:
  explicit Cursor(const MappedFile& file) : file_(file) {}

  int64_t position() const { return position_; }
  int64_t remaining() const { return file_.bytes() - position_; }
  void enter(std::string place) { place_ = std::move(place); }

  [[noreturn]] void fail(const std::string& what) const {
    throw DataError(fmt::format("{}: {}: {}", file_.path().string(), place_, what));
  }

  const uint8_t* take(int64_t bytes) {
    if (bytes < 0 || bytes > remaining())
      fail(fmt::format("the file is truncated: {} bytes are needed at {}, it has {}", bytes, position_, file_.bytes()));
    const uint8_t* data = file_.span(position_, bytes).data();
    position_ += bytes;
    return data;
  }

  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof value), sizeof value);
    return value;
  }

  // A count or size that is followed by at least `unit_bytes` bytes for each.
  int64_t count(const char* of, int64_t unit_bytes) {
    const auto value = number<uint64_t>();
    if (value > static_cast<uint64_t>(remaining() / unit_bytes))
      fail(fmt::format("{} {} cannot fit in the {} bytes that are left of the file", value, of, remaining()));
    return static_cast<int64_t>(value);
  }

  std::string text() {
    const int64_t bytes = count("bytes of text", 1);
    return {reinterpret_cast<const char*>(take(bytes)), static_cast<size_t>(bytes)};
  }

  std::string name(const char* of) {
    std::string value = text();
    if (value.empty() || static_cast<int64_t>(value.size()) > kMaxNameBytes)
      fail(fmt::format("{} of {} bytes; allowed are 1 to {}", of, value.size(), kMaxNameBytes));
    return value;
  }

 private:
  const MappedFile& file_;
  int64_t position_ = 0;
  std::string place_ = "header";
};

GgufFile::GgufFile(const std::filesystem::path& path) : file_(path) {
  Cursor cursor(file_);
  read_version(cursor);
  const auto tensor_count = cursor.count("tensors", 8 + 4 + 8 + 4 + 8);  // name, dimensions, one size, type, offset
  const auto key_count = cursor.count("metadata keys", 8 + 4 + 1);       // name, type, value
  read_metadata(cursor, key_count);
  alignment_ = integer("general.alignment", 32);
  if (alignment_ < 1 || alignment_ > (1 << 30) || !std::has_single_bit(static_cast<uint64_t>(alignment_)))
    fail(fmt::format("general.alignment = {} is not a power of two in [1, 2^30]", alignment_));
  read_tensors(cursor, tensor_count);
  data_offset_ = (cursor.position() + alignment_ - 1) / alignment_ * alignment_;
  for (GgufTensor& tensor : tensors_) tensor.offset += data_offset_;
  check_places();
}

void GgufFile::fail(const std::string& message) const {
  throw DataError(fmt::format("{}: {}", path().string(), message));
}

void GgufFile::read_version(Cursor& cursor) {
  if (cursor.number<uint32_t>() != kMagic) fail("is not a GGUF file: it does not begin with the bytes \"GGUF\"");
  const auto version = cursor.number<uint32_t>();
  if ((version & 0xffff) == 0 && version != 0) fail("is a big-endian GGUF file; only little-endian ones are supported");
  if (version == 1) fail("is a GGUF version 1 file; only versions 2 and 3 are supported: convert it again");
  if (version != 2 && version != 3)
    fail(fmt::format("has GGUF version {}; only versions 2 and 3 are supported", version));
  version_ = version;
}

void GgufFile::read_metadata(Cursor& cursor, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    cursor.enter(fmt::format("metadata key {} of {}", i + 1, count));
    const std::string key = cursor.name("a key");
    cursor.enter(fmt::format("metadata key '{}'", key));
    if (!metadata_.emplace(key, read_value(cursor, cursor.number<uint32_t>())).second) cursor.fail("is there twice");
  }
}

GgufFile::Value GgufFile::read_value(Cursor& cursor, uint32_t type) {
  switch (type) {
    case kUint8:
      return int64_t{cursor.number<uint8_t>()};
    case kInt8:
      return int64_t{cursor.number<int8_t>()};
    case kUint16:
      return int64_t{cursor.number<uint16_t>()};
    case kInt16:
      return int64_t{cursor.number<int16_t>()};
    case kUint32:
      return int64_t{cursor.number<uint32_t>()};
    case kInt32:
      return int64_t{cursor.number<int32_t>()};
    case kInt64:
      return cursor.number<int64_t>();
    case kUint64: {
      const auto value = cursor.number<uint64_t>();
      if (!std::in_range<int64_t>(value)) cursor.fail(fmt::format("{} is larger than 2^63 - 1", value));
      return static_cast<int64_t>(value);
    }
    case kFloat32:
      return double{cursor.number<float>()};
    case kFloat64:
      return cursor.number<double>();
    case kBool: {
      const auto value = cursor.number<uint8_t>();
      if (value > 1) cursor.fail(fmt::format("a flag is {}; allowed are 0 and 1", value));
      return value == 1;
    }
    case kString:
      return cursor.text();
    case kArray:
      return read_array(cursor);
    default:
      cursor.fail(fmt::format("has value type {}; allowed are 0 to 12", type));
  }
}

GgufFile::Value GgufFile::read_array(Cursor& cursor) {
  const auto type = cursor.number<uint32_t>();
  if (type == kArray) cursor.fail("is an array of arrays, which is not supported");
  const int64_t count = cursor.count("array items", type == kString ? 8 : 1);
  const auto fill = [&](auto items) -> Value {
    using Item = typename decltype(items)::value_type;
    items.reserve(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) {
      Value value = read_value(cursor, type);
      if constexpr (std::is_same_v<Item, int64_t>)
        if (const bool* flag = std::get_if<bool>(&value)) value = int64_t{*flag};
      items.push_back(std::move(std::get<Item>(value)));
    }
    return items;
  };
  if (type == kString) return fill(std::vector<std::string>());
  if (type == kFloat32 || type == kFloat64) return fill(std::vector<double>());
  return fill(std::vector<int64_t>());
}

void GgufFile::read_tensors(Cursor& cursor, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    cursor.enter(fmt::format("tensor {} of {}", i + 1, count));
    GgufTensor tensor = read_tensor(cursor, file_.bytes());
    if (!tensor_index_.emplace(tensor.name, tensors_.size()).second) cursor.fail("is there twice");
    tensors_.push_back(std::move(tensor));
  }
}

GgufTensor GgufFile::read_tensor(Cursor& cursor, int64_t file_bytes) {
  GgufTensor tensor;
  tensor.name = cursor.name("a tensor name");
  cursor.enter(fmt::format("tensor '{}'", tensor.name));
  const auto dimensions = cursor.number<uint32_t>();
  if (dimensions < 1 || dimensions > kMaxDimensions)
    cursor.fail(fmt::format("has {} dimensions; allowed are 1 to {}", dimensions, kMaxDimensions));
  int64_t values = 1;
  for (uint32_t i = 0; i < dimensions; ++i) {
    const auto size = cursor.number<int64_t>();
    // No type has less than a bit a value, so that nobody makes room for a shape that the file cannot fill.
    if (size < 1 || __builtin_mul_overflow(values, size, &values) || values / 8 > file_bytes)
      cursor.fail(fmt::format("dimension {} has size {}, impossible in a file of {} bytes", i, size, file_bytes));
    tensor.shape.insert(tensor.shape.begin(), size);
  }
  tensor.type = cursor.number<uint32_t>();
  if (const GgufType* type = gguf_type(tensor.type)) {
    if (tensor.shape.back() % type->block_values != 0)
      cursor.fail(fmt::format("shape [{}] has rows that are no multiple of {}, the block of type {}",
                              fmt::join(tensor.shape, ", "), type->block_values, type->name));
    tensor.bytes = values / type->block_values * type->block_bytes;
  }
  const auto offset = cursor.number<uint64_t>();
  if (offset > static_cast<uint64_t>(file_bytes))
    cursor.fail(fmt::format("starts {} bytes into the data of a file of {} bytes: truncated, or a wrong offset", offset,
                            file_bytes));
  tensor.offset = static_cast<int64_t>(offset);
  return tensor;
}

void GgufFile::check_places() const {
  std::vector<const GgufTensor*> order;
  for (const GgufTensor& tensor : tensors_) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const GgufTensor* a, const GgufTensor* b) {
    return std::pair(a->offset, a->bytes) < std::pair(b->offset, b->bytes);
  });
  for (size_t i = 0; i < order.size(); ++i) {
    const GgufTensor& tensor = *order[i];
    if ((tensor.offset - data_offset_) % alignment_ != 0)
      fail(fmt::format("tensor '{}' starts at {}, which is not aligned to {} bytes", tensor.name, tensor.offset,
                       alignment_));
    if (tensor.offset > file_.bytes() || tensor.bytes > file_.bytes() - tensor.offset)
      fail(fmt::format("tensor '{}' needs bytes {} to {}, the file has {}: truncated, or a wrong offset or shape",
                       tensor.name, tensor.offset, tensor.offset + tensor.bytes, file_.bytes()));
    if (i > 0 && order[i - 1]->offset + order[i - 1]->bytes > tensor.offset)
      fail(fmt::format("tensors '{}' and '{}' overlap at byte {}", order[i - 1]->name, tensor.name, tensor.offset));
  }
}

const GgufFile::Value* GgufFile::lookup(const std::string& key, bool required) const {
  const auto at = metadata_.find(key);
  if (at != metadata_.end()) return &at->second;
  if (required) fail(fmt::format("has no metadata key '{}'", key));
  return nullptr;
}

template <class T>
T GgufFile::get(const std::string& key, const std::optional<T>& fallback, const char* wanted) const {
  const Value* value = lookup(key, !fallback);
  if (value == nullptr) return *fallback;
  if (const T* typed = std::get_if<T>(value)) return *typed;
  static constexpr const char* kNames[] = {
      "a flag", "an integer", "a number", "a text", "an array of integers", "an array of numbers", "an array of texts"};
  fail(fmt::format("metadata key '{}' is {}; needed is {}", key, kNames[value->index()], wanted));
}

int64_t GgufFile::integer(const std::string& key, std::optional<int64_t> fallback) const {
  return get(key, fallback, "an integer");
}

double GgufFile::number(const std::string& key, std::optional<double> fallback) const {
  const Value* value = lookup(key, !fallback);
  if (value != nullptr && std::holds_alternative<int64_t>(*value))
    return static_cast<double>(std::get<int64_t>(*value));
  return get(key, fallback, "a number");
}

bool GgufFile::flag(const std::string& key, std::optional<bool> fallback) const {
  return get(key, fallback, "a flag");
}

std::string GgufFile::text(const std::string& key, std::optional<std::string> fallback) const {
  return get(key, fallback, "a text");
}

std::vector<int64_t> GgufFile::integers(const std::string& key, std::optional<std::vector<int64_t>> fallback) const {
  return get(key, fallback, "an array of integers");
}

std::vector<double> GgufFile::numbers(const std::string& key, std::optional<std::vector<double>> fallback) const {
  return get(key, fallback, "an array of numbers");
}

std::vector<std::string> GgufFile::texts(const std::string& key,
                                         std::optional<std::vector<std::string>> fallback) const {
  return get(key, fallback, "an array of texts");
}

const GgufTensor* GgufFile::find(const std::string& name) const {
  const auto at = tensor_index_.find(name);
  return at == tensor_index_.end() ? nullptr : &tensors_[at->second];
}

const GgufTensor& GgufFile::tensor(const std::string& name) const {
  const GgufTensor* found = find(name);
  if (found == nullptr) fail(fmt::format("has no tensor '{}'", name));
  return *found;
}

std::span<const uint8_t> GgufFile::packed(const GgufTensor& tensor) const {
  return file_.span(tensor.offset, tensor.bytes);
}

void GgufFile::read(const GgufTensor& tensor, float* out) const {
  const GgufType* type = gguf_type(tensor.type);
  if (type == nullptr || type->dequantize == nullptr)
    fail(fmt::format("tensor '{}' has type {}{}; weights can be read from {}", tensor.name, tensor.type,
                     type == nullptr ? "" : fmt::format(" ({})", type->name), gguf_weight_types()));
  gguf_dequantize(*type, packed(tensor), out);
  file_.drop(tensor.offset, tensor.bytes);
}

}  // namespace kvsweep
