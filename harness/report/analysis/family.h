#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "harness/report/record.h"

namespace kvsweep {

// Configurations of a scheme that differ in nothing but bits are a family. A parameter is another name for the bits
// where its value is the K bits (or the V bits) of every record that has it, or is no number and the same for the same
// K bits (or V bits): "k_type=q8_0". Judged over all records given that did not fail: a name means the same in every
// table that is made from them.
class Families {
 public:
  explicit Families(const std::vector<Record>& records);

  // "uniform", or with the parameters in which the scheme's records differ beyond their bits: "uniform window=128".
  std::string family(const Record& record) const;
  // "uniform window=128 K4 V2". Of a failed record, whose bits are not known, the scheme with all of its parameters.
  std::string configuration(const Record& record) const;

 private:
  std::map<std::string, std::set<std::string>> shown_;  // by scheme
};

// "K4 V2"
std::string bits_text(double k_bits, double v_bits);

}  // namespace kvsweep
