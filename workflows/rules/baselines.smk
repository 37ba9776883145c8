rule baselines:
    input:
        store=receipt("regrid"),
        normals=receipt("normals"),
    output:
        report(receipt("baselines"), caption="../report/baselines.rst", category="Skill"),
    log:
        beside("logs", "baselines", ".log"),
    benchmark:
        beside("benchmarks", "baselines", ".tsv")
    threads: 16
    resources:
        mem_mb=8000,
        runtime="5d",
    conda:
        "../../environment.yml"
    message:
        "baselines: train climate-learn's networks on the same store and issue their forecasts"
    params:
        options=OPTIONS,
    shell:
        "python -m pipeline baselines {params.options} --log {log:q}"
