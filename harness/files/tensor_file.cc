#include "harness/files/tensor_file.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "harness/core/error.h"

namespace kvsweep {
namespace {

struct DtypeName {
  const char* name;
  at::ScalarType type;
};

constexpr std::array<DtypeName, 11> kDtypes = {{{"F32", at::kFloat},
                                                {"F16", at::kHalf},
                                                {"BF16", at::kBFloat16},
                                                {"F64", at::kDouble},
                                                {"U8", at::kByte},
                                                {"BOOL", at::kBool},
                                                {"I8", at::kChar},
                                                {"I16", at::kShort},
                                                {"I32", at::kInt},
                                                {"I64", at::kLong},
                                                {"F8_E4M3", at::kFloat8_e4m3fn}}};

}  // namespace

at::Tensor read_tensor(const SafetensorsFile& file, const std::string& name) {
  const SafetensorsTensor& from = file.tensor(name);
  const auto known =
      std::find_if(kDtypes.begin(), kDtypes.end(), [&](const DtypeName& entry) { return entry.name == from.dtype; });
  if (known == kDtypes.end())
    throw DataError(
        fmt::format("{}: tensor '{}' has dtype {}, which is not read", file.path().string(), name, from.dtype));
  const at::Tensor out = at::empty(from.shape, known->type);
  if (from.bytes > 0) std::memcpy(out.mutable_data_ptr(), file.bytes(name).data(), static_cast<size_t>(from.bytes));
  return out;
}

TensorMap read_tensors(const SafetensorsFile& file) {
  TensorMap tensors;
  for (const auto& [name, entry] : file.tensors()) tensors.emplace(name, read_tensor(file, name));
  return tensors;
}

void write_tensors(const std::filesystem::path& path, const TensorMap& tensors,
                   const std::map<std::string, std::string>& metadata) {
  std::vector<at::Tensor> kept;
  std::vector<SafetensorsSource> sources;
  for (const auto& [name, tensor] : tensors) {
    const auto known = std::find_if(kDtypes.begin(), kDtypes.end(),
                                    [&](const DtypeName& entry) { return entry.type == tensor.scalar_type(); });
    TORCH_CHECK(known != kDtypes.end(), "tensor file: ", name, " has dtype ", tensor.scalar_type());
    kept.push_back(tensor.to(at::kCPU).contiguous());
    sources.push_back({name,
                       known->name,
                       kept.back().sizes().vec(),
                       {static_cast<const uint8_t*>(kept.back().const_data_ptr()), kept.back().nbytes()}});
  }
  write_safetensors(path, sources, metadata);
}

}  // namespace kvsweep
