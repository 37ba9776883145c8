rule regrid:
    input:
        source=[receipt(s) for s, kind in (("simulate", "simulation"), ("fetch", "cds")) if kind == SETTINGS.source.kind],
    output:
        report(receipt("regrid"), caption="../report/regrid.rst", category="Data"),
    log:
        beside("logs", "regrid", ".log"),
    benchmark:
        beside("benchmarks", "regrid", ".tsv")
    threads: 16
    resources:
        mem_mb=6000,
        runtime="5d",
    conda:
        "../../environment.yml"
    message:
        "regrid: read the source, put it on the target grid and write the training store"
    params:
        options=OPTIONS,
    shell:
        "python -m pipeline regrid {params.options} --log {log:q}"


rule normals:
    input:
        store=receipt("regrid"),
    output:
        report(receipt("normals"), caption="../report/normals.rst", category="Data"),
    log:
        beside("logs", "normals", ".log"),
    benchmark:
        beside("benchmarks", "normals", ".tsv")
    threads: 8
    resources:
        mem_mb=6000,
        runtime="12h",
    conda:
        "../../environment.yml"
    message:
        "normals: means, spreads and the climatology of the training periods"
    params:
        options=OPTIONS,
    shell:
        "python -m pipeline normals {params.options} --log {log:q}"
