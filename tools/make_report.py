"""Create one HTML page of all results: models side by side, figures, tables, and missing measurements.

python tools/make_report.py work_dirs/records/results.jsonl work_dirs/* --out report.html
python tools/make_report.py work_dirs speed --reference pit_s --figures figures --tables tables
It reads records (results.jsonl, with verdicts and runs beside them; summaries that tools wrote with --json), mmengine's
logs, speed/results.csv, and images, from files and folders. It writes report.json and report.csv beside the
page.
"""

import argparse

from pit_downstream import cli


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add('paths', nargs='+', metavar='PATH', help='files, or folders that hold them')
    add('--out', default='report.html', metavar='FILE', help='the page (default: %(default)s)')
    add('--reference', default='AlexNet', metavar='NAME', help='the model that CE and differences compare with '
        '(default: AlexNet as published, for CE; the first model, for differences)')
    add('--title', default='Robustness report', help='(default: %(default)s)')
    add('--figures', metavar='DIR', help='also write every figure as SVG and PNG')
    add('--tables', metavar='DIR', help='also write every table as LaTeX (booktabs) and Markdown')
    add('--import', dest='imports', nargs='+', default=[], metavar='MODULE', help='modules that register sections')
    return parser.parse_args()


def main():
    args = parse_args()
    from pit_downstream.report import exports, page, sections
    from pit_downstream.utils.extras import require_extra
    require_extra('report')
    exports.require_places(args.out, figures=args.figures, tables=args.tables)
    for module in args.imports:
        cli.plugins.import_plugin(module)
    report = sections.make_report(args.paths, reference=args.reference, title=args.title,
                                  apart_from=filter(None, (args.figures, args.tables)))
    files = exports.write_report(report, args.out, html=page.as_html(report, made=page.made_now()))
    exports.write_figures(report, args.figures)
    exports.write_tables(report, args.tables)
    for gap in report.gaps:
        print(f'missing: {gap.what}\n    {gap.command}')
    print(*files, *filter(None, (args.figures, args.tables)), sep='\n')


if __name__ == '__main__':
    with cli.report_errors():
        main()
