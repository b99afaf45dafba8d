"""Make one HTML page of everything that was measured: models side by side, figures, tables, and what is missing.

python tools/make_report.py work_dirs/records/results.jsonl work_dirs/* --out report.html
python tools/make_report.py work_dirs benchmarks/*.json --reference pit_s --figures figures --tables tables
It reads records (results.jsonl, with verdicts and runs beside them; summaries that tools wrote with --json), mmengine's
logs, the JSON of benchmarks, and pictures, from files and from folders. report.json and report.csv lie beside the page.
"""

import argparse
from pathlib import Path

from pit_downstream import cli


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('paths', nargs='+', metavar='PATH', help='files, or folders that hold them')
    parser.add_argument('--out', default='report.html', metavar='FILE', help='the page (default: %(default)s)')
    parser.add_argument('--reference', default='AlexNet', metavar='NAME', help='the model that CE and differences '
                        'compare with (default: AlexNet as published, for CE; the first model, for differences)')
    parser.add_argument('--title', default='Robustness report', help='(default: %(default)s)')
    parser.add_argument('--figures', metavar='DIR', help='also write every figure as SVG and PNG')
    parser.add_argument('--tables', metavar='DIR', help='also write every table as LaTeX (booktabs) and Markdown')
    return parser.parse_args()


def main():
    args = parse_args()
    from pit_downstream.report import drawing, exports, page, sections
    drawing.require_matplotlib()
    exports.require_places(args.out, figures=args.figures, tables=args.tables)
    own = [folder for folder in (args.figures, args.tables) if folder]
    report = sections.make_report(args.paths, reference=args.reference, title=args.title, apart_from=own)
    out = Path(args.out)
    out.write_text(page.as_html(report, made=page.made_now()))
    files = [out, out.with_suffix('.json'), out.with_suffix('.csv')]
    files[1].write_text(exports.as_json(report))
    files[2].write_text(exports.as_csv(report))
    files += exports.write_figures(report, args.figures) if args.figures else []
    files += exports.write_tables(report, args.tables) if args.tables else []
    for gap in report.gaps:
        print(f'missing: {gap.what}\n    {gap.command}')
    print(*files[:3], sep='\n')


if __name__ == '__main__':
    with cli.one_sentence():
        main()
