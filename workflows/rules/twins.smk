rule twins:
    input:
        archive=receipt("simulate"),
        store=receipt("regrid"),
    output:
        report(receipt("twins"), caption="../report/twins.rst", category="Skill"),
    log:
        beside("logs", "twins", ".log"),
    benchmark:
        beside("benchmarks", "twins", ".tsv")
    threads: 8
    resources:
        mem_mb=4000,
        runtime="12h",
    conda:
        "../../environment.yml"
    message:
        "twins: the perfect-model ceiling and a coarser core, from init times of the test period"
    params:
        options=OPTIONS,
    shell:
        "python -m pipeline twins {params.options} --log {log:q}"
