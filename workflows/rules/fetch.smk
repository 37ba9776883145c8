rule fetch:
    output:
        report(receipt("fetch"), caption="../report/fetch.rst", category="Data"),
    log:
        beside("logs", "fetch", ".log"),
    benchmark:
        beside("benchmarks", "fetch", ".tsv")
    threads: 1
    resources:
        mem_mb=4000,
        runtime="10d",
    conda:
        "../../environment.yml"
    message:
        "fetch: download ERA5 from the Climate Data Store"
    params:
        options=OPTIONS,
    shell:
        "python -m pipeline fetch {params.options} --log {log:q}"
