def test_a_benchmark_is_a_row_with_what_its_time_means(benchmark_module):
    document = {
        "machine_info": {"cpu": {"count": 2, "brand_raw": "Xeon"}, "machine": "x86_64", "python_version": "3.11.7"},
        "benchmarks": [
            {
                "fullname": "benchmarks/test_torch.py::test_torch[eager-1]",
                "stats": {"median": 0.0123},
                "extra_info": {"times_ours": 1.23456, "kind": "eager"},
            }
        ],
    }
    printed = benchmark_module("report").report(document).splitlines()
    assert printed[0] == "2 cores of Xeon, Python 3.11.7"
    assert printed[-1] == "| test_torch: torch[eager-1] | 12.30 | times_ours 1.235, kind eager |"
