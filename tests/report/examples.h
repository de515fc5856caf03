#pragma once

#include "harness/report/record.h"

namespace kvsweep::testing {

// A sample with a value in every field, as point `point_id` would record it.
inline SampleRecord example_sample(const std::string& point_id, int64_t index) {
  SampleRecord sample;
  sample.point_id = point_id;
  sample.sample_id = "d030-s" + std::to_string(index);
  sample.index = index;
  sample.prompt_hash = "prompt" + std::to_string(index);
  sample.context_tokens = 1000;
  sample.query_tokens = 24;
  sample.tags = {{"depth", "30"}};
  sample.output = "the \"magic\" number\nis 7 \xe2\x82\xac";
  sample.output_tokens = {1, 2, 49151};
  sample.scores = {{"exact_match", 1}};
  sample.kl = {0.1f, 1e-7f, 3.25f};
  sample.top1_flips = 1;
  sample.first_divergence = 2;
  sample.compressed_reads = 4096;
  sample.bytes = {{{"codes", 128}, {"scales", 16}}, 144, 160, 8, 24, 576};
  sample.reused_tokens = 1;
  sample.noise = Noise{1e-9, 2e-8, 24, 0};
  sample.attention = AttentionDrift{0.02, 0.9, 0.11, 0.12};
  sample.time = {12.5, 0.1, 3.7, 41.25, "fused"};
  return sample;
}

// A record with a value in every field.
inline Record example_record() {
  Record record;
  record.point.model = "smollm2-135m";
  record.point.task = "needle";
  record.point.task_version = 2;
  record.point.task_params = {{"tokens", "1024"}, {"depths", "10"}};
  record.point.tokens = 1024;
  record.point.scheme = "uniform";
  record.point.scheme_params = {{"k_bits", "4"}, {"v_bits", "2"}};
  record.point.view = "exact";
  record.point.seed = 18446744073709551615u;
  record.id = record.point.id();
  record.status = "ok";
  record.n = 200;
  record.metrics = {{"exact_match", {0.1 + 0.2, 0.025, 200}}};
  record.primary_metric = "exact_match";
  record.metric_info = {{"exact_match", {"accuracy", false, true, "no answer"}}};
  record.breakdown = {"depth"};
  record.task_kind = "retrieval";
  record.reference_id = "0123456789abcdef";
  record.kl = {0.021, 0.001, 200};
  record.kl_median = 0.01;
  record.kl_p99 = 0.4;
  record.kl_max = 7.5;
  record.top1_flips = {0.03, 0.002, 200};
  record.noise = Noise{2e-9, 3e-8, 4800, 1};
  record.attention = AttentionDrift{0.03, 0.8, 0.1, 0.12};
  record.divergence_share = 0.4;
  record.generated_tokens = 600;
  record.reused_tokens = 450;
  record.paired = Paired{"full", "exact_match", -0.1, 0.02, 22, 2, 1.05, 0.01};
  record.nominal_k_bits = 4;
  record.nominal_v_bits = 2;
  record.effective_bits = 3.26;
  record.bytes_per_token = 4704.5;
  record.bytes = {{{"codes", 1}, {"window", 2}}, 3, 4, 5, 6, 7};
  record.compressed_reads = 81920;
  record.prefill_ms = 812.25;
  record.compress_ms = 3.5;
  record.decode_ms_per_token = 40.125;
  record.path = "fused";
  record.warnings = {"model.norm.weight: 2 values"};
  record.env = {"0.1.0",
                "0123abcd",
                true,
                "2.11.0",
                "cpu",
                "float32",
                "host",
                "a cpu",
                "2026-11-22T10:00:00Z",
                2,
                true,
                "weights",
                "data",
                "kvsweep run a.yaml"};
  return record;
}

}  // namespace kvsweep::testing
