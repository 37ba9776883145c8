rule simulate:
    output:
        report(receipt("simulate"), caption="../report/simulate.rst", category="Data"),
    log:
        beside("logs", "simulate", ".log"),
    benchmark:
        beside("benchmarks", "simulate", ".tsv")
    threads: 8
    resources:
        mem_mb=4000,
        runtime="12h",
    conda:
        "../../environment.yml"
    message:
        "simulate: integrate the embedded atmosphere and write an ERA5-shaped archive"
    params:
        options=OPTIONS,
    shell:
        "python -m pipeline simulate {params.options} --log {log:q}"
