#include "harness/report/html/gzip.h"

#include <zlib.h>

#include <cstdint>

#include "harness/core/error.h"

namespace kvsweep {
namespace {

constexpr int kGzipWindow = 15 + 16;  // 32 KiB, a gzip header
constexpr int kLevel = 6, kMemory = 9;

class Deflater {
 public:
  Deflater() {
    if (deflateInit2(&stream_, kLevel, Z_DEFLATED, kGzipWindow, kMemory, Z_DEFAULT_STRATEGY) != Z_OK)
      throw DataError("zlib: no memory");
  }
  ~Deflater() { deflateEnd(&stream_); }
  Deflater(const Deflater&) = delete;
  Deflater& operator=(const Deflater&) = delete;

  std::string run(std::string_view bytes) {
    if (bytes.size() > UINT32_MAX) throw DataError("zlib: more than 4 GiB in one piece");
    std::string out(deflateBound(&stream_, bytes.size()), '\0');
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
    stream_.avail_in = static_cast<uInt>(bytes.size());
    stream_.next_out = reinterpret_cast<Bytef*>(out.data());
    stream_.avail_out = static_cast<uInt>(out.size());
    if (deflate(&stream_, Z_FINISH) != Z_STREAM_END) throw DataError("zlib: cannot deflate");
    out.resize(stream_.total_out);
    return out;
  }

 private:
  z_stream stream_ = {};
};

}  // namespace

std::string base64(std::string_view bytes) {
  static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const size_t have = std::min<size_t>(3, bytes.size() - i);
    uint32_t word = 0;
    for (size_t j = 0; j < 3; ++j) word = word << 8 | (j < have ? static_cast<unsigned char>(bytes[i + j]) : 0u);
    for (size_t j = 0; j < 4; ++j) out += j <= have ? kDigits[word >> (18 - 6 * j) & 63] : '=';
  }
  return out;
}

std::string gzip_base64(std::string_view bytes) {
  return base64(Deflater().run(bytes));
}

}  // namespace kvsweep
