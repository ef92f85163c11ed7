//! The distributions as SVG: a line from p1 to p99, a box from p25 to p75, a bar at the median; words beside each.

use super::quantile;

const LEFT: f64 = 130.0;
const WIDTH: f64 = 560.0;
const ROW: f64 = 44.0;
const STEP: i32 = 5;

/// Rows of sorted seconds.
pub fn svg(rows: &[(String, Vec<f64>)]) -> String {
    let all = rows.iter().flat_map(|(_, delays)| delays);
    let least =
        (all.clone().fold(0.0_f64, |a, b| a.min(*b)) / f64::from(STEP)).floor() as i32 * STEP;
    let most = (all.fold(0.0_f64, |a, b| a.max(*b)) / f64::from(STEP)).ceil() as i32 * STEP;
    let x = |seconds: f64| LEFT + WIDTH * (seconds - f64::from(least)) / f64::from(most - least);
    let bottom = 40.0 + ROW * rows.len() as f64;
    let mut drawn = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {:.0}\" font-family=\"sans-serif\" font-size=\"13\" role=\"img\">\n\
         <title>Seconds from the last request's end to the hook's answer</title>\n\
         <style>svg {{ color: #222; background: #fff }} text {{ fill: currentColor }} path, rect {{ stroke: currentColor; fill: none }}\n\
         @media (prefers-color-scheme: dark) {{ svg {{ color: #ddd; background: #111 }} }}</style>\n\
         <text x=\"{LEFT}\" y=\"20\">Seconds from the last request's end to the hook's answer; less than 0: the request is cut</text>\n",
        LEFT + WIDTH + 30.0,
        bottom + 30.0,
    );
    for tick in (least..=most).step_by(STEP as usize) {
        let (at, width) = (x(f64::from(tick)), if tick == 0 { 2.0 } else { 0.3 });
        drawn += &format!(
            "<path d=\"M{at:.1} 32V{bottom:.1}\" stroke-width=\"{width}\"/><text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{tick}</text>\n",
            bottom + 18.0
        );
    }
    for (n, (name, delays)) in rows.iter().enumerate() {
        let y = 56.0 + ROW * n as f64;
        let [p1, p25, median, p75, p99] =
            [0.01, 0.25, 0.5, 0.75, 0.99].map(|part| x(quantile(delays, part)));
        drawn += &format!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>\
             <path d=\"M{p1:.1} {y}H{p25:.1}M{p75:.1} {y}H{p99:.1}\"/>\
             <rect x=\"{p25:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"16\"/>\
             <path d=\"M{median:.1} {:.1}v20\" stroke-width=\"4\"/>\n",
            LEFT - 10.0,
            y + 4.0,
            y - 8.0,
            (p75 - p25).max(1.0),
            y - 10.0,
        );
    }
    drawn + "</svg>\n"
}
